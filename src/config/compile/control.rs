//! The control socket: `admin.control`.

use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use aws_lc_rs::digest;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

use crate::config::compiled::ControlPlace;
use crate::config::settings::{Defect, Settings, StoreUrl};
use crate::session::settings::StoreLocation;

/// Compiles `admin.control`. Only a store that belongs to the process alone
/// needs one.
pub fn compile(settings: &Settings, text: &str) -> Result<ControlPlace, Defect> {
    let store: StoreUrl = settings.section("store", "store").get("url")?;
    Ok(match (text, store.location) {
        ("off", _) => ControlPlace::Nowhere,
        (_, location) if location.can_be_shared() => ControlPlace::Nowhere,
        ("auto", StoreLocation::File(folder)) => ControlPlace::At {
            path: folder.join("control.sock"),
            asked: false,
        },
        // One for each folder with a configuration, since nothing else tells
        // the command line which process is meant.
        ("auto", _) => {
            let folder = settings.folder();
            let folder = match folder.as_os_str().is_empty() {
                true => Path::new("."),
                false => folder,
            };
            let whole = std::path::absolute(folder).unwrap_or_else(|_| folder.to_path_buf());
            let whole = whole.canonicalize().unwrap_or(whole);
            let hash = digest::digest(&digest::SHA256, whole.as_os_str().as_bytes());
            let name = URL_SAFE_NO_PAD.encode(hash.as_ref().get(..9).unwrap_or_default());
            ControlPlace::Runtime(format!("cloakroom-{name}.sock"))
        }
        (path, _) => ControlPlace::At {
            path: settings
                .folder()
                .join(path.strip_prefix("unix:").unwrap_or(path)),
            asked: true,
        },
    })
}
