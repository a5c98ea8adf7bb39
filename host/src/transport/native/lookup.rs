//! Where the system would find an executable.

use std::env;
use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;

use rustix::fs::{Access, access};

/// Tells whether `name`, looked up in `path`, is found by way of a folder that is not
/// absolute: whoever can write to the working directory would choose the program.
pub(super) fn depends_on_working_directory(name: &OsStr, path: &OsStr) -> bool {
    if name.is_empty() || name.as_bytes().contains(&b'/') {
        return false;
    }
    env::split_paths(path)
        .find(|folder| is_executable(&folder.join(name)))
        .is_some_and(|folder| folder.is_relative())
}

fn is_executable(file: &Path) -> bool {
    file.is_file() && access(file, Access::EXEC_OK).is_ok()
}

#[cfg(test)]
mod tests {
    use std::fs::Permissions;
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    /// Makes a file of this mode and returns what `PATH` would need to be to find it, by
    /// its absolute folder and by one that is not.
    #[expect(clippy::disallowed_methods, reason = "tests make what they look for")]
    fn file(mode: u32) -> (tempfile::TempDir, String, String) {
        let here = env::current_dir().expect("there is one");
        let folder = tempfile::tempdir_in(&here).expect("a folder");
        let file = folder.path().join("policy");
        std::fs::write(&file, "").expect("the folder is ours");
        std::fs::set_permissions(&file, Permissions::from_mode(mode)).expect("it is ours");
        let name = folder.path().file_name().expect("it has one");
        let relative = name.to_string_lossy().into_owned();
        let absolute = folder.path().to_string_lossy().into_owned();
        (folder, absolute, relative)
    }

    fn depends(name: &str, path: &str) -> bool {
        depends_on_working_directory(name.as_ref(), path.as_ref())
    }

    #[test]
    fn the_first_folder_that_has_it_decides() {
        let (_folder, absolute, relative) = file(0o755);
        assert!(depends("policy", &relative));
        assert!(depends(
            "policy",
            &format!("/does/not/exist:{relative}:{absolute}")
        ));
        assert!(!depends("policy", &format!("{absolute}:{relative}")));
        assert!(!depends("other", &relative));
    }

    #[test]
    fn what_cannot_be_executed_is_not_found() {
        let (_folder, _, relative) = file(0o644);
        assert!(!depends("policy", &relative));
        assert!(!depends(&relative, "."), "a folder is no program");
    }

    #[test]
    fn a_name_with_a_slash_is_not_looked_up() {
        let (_folder, _, relative) = file(0o755);
        assert!(!depends(&format!("{relative}/policy"), "."));
        assert!(!depends("", "."));
    }
}
