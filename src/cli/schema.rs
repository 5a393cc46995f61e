//! `cloakroom schema`: the configuration as JSON Schema, for editors.

use std::io::{self, Write};

use crate::config::schema::schema;

/// Prints the schema to standard output.
///
/// # Errors
///
/// The output cannot be written.
pub fn run() -> io::Result<()> {
    write_to(&mut io::stdout().lock())
}

fn write_to(out: &mut impl Write) -> io::Result<()> {
    serde_json::to_writer_pretty(&mut *out, &schema())?;
    writeln!(out)
}

#[cfg(test)]
mod tests {
    #[test]
    fn what_is_printed_is_json() {
        let mut out = Vec::new();
        super::write_to(&mut out).unwrap();
        let schema: serde_json::Value = serde_json::from_slice(&out).unwrap();
        assert_eq!(schema["title"], "Cloakroom configuration");
    }
}
