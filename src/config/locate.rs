//! Which file is the configuration.

use std::path::{Path, PathBuf};

use super::environment::Environment;

/// The variable that names it.
pub const VARIABLE: &str = "CLOAKROOM_CONFIG";

/// Where it is looked for if nobody names it.
pub const PLACES: [&str; 2] = ["./cloakroom.toml", "/etc/cloakroom/cloakroom.toml"];

/// `-c`, else `$CLOAKROOM_CONFIG`, else the first of [`PLACES`] that is there.
/// A file that somebody named is returned whether it is there or not, so that
/// its absence is an error. `None`: nobody named one and there is none.
pub fn locate(option: Option<&Path>, environment: &Environment) -> Option<PathBuf> {
    if let Some(path) = option {
        return Some(path.to_path_buf());
    }
    if let Some(path) = environment.value(VARIABLE).filter(|path| !path.is_empty()) {
        use std::os::unix::ffi::OsStrExt;
        return Some(PathBuf::from(std::ffi::OsStr::from_bytes(path)));
    }
    PLACES.iter().map(PathBuf::from).find(|path| path.exists())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_names_it_first_wins() {
        let environment: Environment = [(VARIABLE, "b.toml")].into_iter().collect();
        let option = Some(Path::new("a.toml"));
        assert_eq!(locate(option, &environment), Some("a.toml".into()));
        assert_eq!(locate(None, &environment), Some("b.toml".into()));
        let empty: Environment = [(VARIABLE, "")].into_iter().collect();
        assert_ne!(locate(None, &empty), Some("".into()));
    }
}
