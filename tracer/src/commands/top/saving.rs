//! Saves the view to a new file in the working directory.

use std::{
    env, fs,
    io::{self, Write as _},
    os::unix::ffi::OsStrExt as _,
    path::{Path, PathBuf},
};

use tracer_core::escape::escape;

use crate::recording::create_new;

/// Saves a view, and returns a sentence for the screen: where it was saved, or why it could not be.
///
/// The file is new: an existing file is not overwritten, and no link is followed. It is created with the privileges that are
/// left, so root needs a folder that root may write to without CAP_DAC_OVERRIDE.
pub(super) fn save(view: &[u8]) -> String {
    save_in(Path::new("."), &file_name(jiff::Timestamp::now()), view)
}

fn save_in(folder: &Path, name: &str, view: &[u8]) -> String {
    let shown = folder_text(folder);
    match write(&folder.join(name), view) {
        Ok(()) => format!("saved {name} in {shown}"),
        Err(error) => format!(
            "not saved: {error}, in {shown}; start `top` in a folder where its user may create files, without capabilities"
        ),
    }
}

/// Returns the name of the file for a view at this time: `tcptrace-bpf-top-20260102T030405.678Z.json`.
fn file_name(time: jiff::Timestamp) -> String {
    time.strftime("tcptrace-bpf-top-%Y%m%dT%H%M%S.%3fZ.json").to_string()
}

fn write(path: &Path, view: &[u8]) -> io::Result<()> {
    let mut file = create_new(path, 0o600)?;
    let written = file.write_all(view);
    if written.is_err() {
        // Half an object is of no use. The first error is the one to report.
        let _ = fs::remove_file(path);
    }
    written
}

/// Returns the absolute path of a folder, escaped for the terminal.
fn folder_text(folder: &Path) -> String {
    let path: PathBuf = env::current_dir().map_or_else(|_| folder.to_owned(), |here| here.join(folder));
    let path = path.components().collect::<PathBuf>();
    escape(path.as_os_str().as_bytes())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::{PermissionsExt as _, symlink};

    use super::*;

    #[test]
    fn the_name_has_the_time() {
        let time: jiff::Timestamp = "2026-01-02T03:04:05.678912Z".parse().unwrap();
        assert_eq!(file_name(time), "tcptrace-bpf-top-20260102T030405.678Z.json");
    }

    #[test]
    fn a_view_is_saved_to_a_new_file_for_its_user() {
        let folder = tempfile::tempdir().unwrap();
        let said = save_in(folder.path(), "view.json", b"{}\n");
        assert_eq!(said, format!("saved view.json in {}", folder.path().display()));
        let file = folder.path().join("view.json");
        assert_eq!(fs::read(&file).unwrap(), b"{}\n");
        assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
    }

    #[test]
    fn nothing_is_overwritten_and_no_link_is_followed() {
        let folder = tempfile::tempdir().unwrap();
        let target = folder.path().join("target");
        symlink(&target, folder.path().join("link.json")).unwrap();
        fs::write(folder.path().join("there.json"), "before").unwrap();
        for name in ["link.json", "there.json", "no/such/folder.json"] {
            let said = save_in(folder.path(), name, b"{}\n");
            assert!(said.starts_with("not saved: "), "{said}");
            assert!(said.contains(&folder.path().display().to_string()), "{said}");
        }
        assert!(!target.exists());
        assert_eq!(fs::read(folder.path().join("there.json")).unwrap(), b"before");
    }
}
