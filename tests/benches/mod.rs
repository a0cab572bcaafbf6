//! What `benches/run` refuses: figures that belong to no commit.

use std::path::Path;
use std::process::Command;

fn git(folder: &Path, arguments: &[&str]) {
    let status = Command::new("git")
        .args(["-c", "user.name=test", "-c", "user.email=test@localhost"])
        .args(arguments)
        .current_dir(folder)
        .status()
        .expect("git is there");
    assert!(status.success(), "git {arguments:?}");
}

/// A repository that holds only `benches/run`: a clean one gets past the check, to what fails for
/// want of a crate.
#[test]
fn figures_are_kept_only_of_what_is_committed() {
    let folder = tempfile::tempdir().expect("a folder");
    let script = folder.path().join("benches/run");
    std::fs::create_dir(folder.path().join("benches")).expect("a folder");
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("benches/run");
    std::fs::copy(source, &script).expect("it is copied");
    git(folder.path(), &["init", "--quiet"]);
    git(folder.path(), &["add", "."]);
    git(folder.path(), &["commit", "--quiet", "--message", "all"]);
    let keep = || {
        let output = Command::new("python3")
            .args(["benches/run", "--keep", "worker"])
            .current_dir(folder.path())
            .output()
            .expect("python3 is there");
        assert!(!output.status.success());
        String::from_utf8_lossy(&output.stderr).into_owned()
    };
    assert!(!keep().contains("--keep keeps"), "nothing is uncommitted");
    std::fs::write(folder.path().join("new.rs"), "").expect("it is written");
    assert!(keep().contains("?? new.rs"));
    std::fs::remove_file(folder.path().join("new.rs")).expect("it is there");
    let mut changed = std::fs::read_to_string(&script).expect("it is there");
    changed.push_str("# changed\n");
    std::fs::write(&script, changed).expect("it is written");
    assert!(keep().contains(" M benches/run"));
}
