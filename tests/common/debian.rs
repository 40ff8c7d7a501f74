//! The Debian package, and a Debian to install it on.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::{Who, command, dotlockfs, finish, require_program, shell};

/// The checkout.
pub fn repository() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A directory on a disk, and not in memory as `/tmp` may be.
pub fn on_disk() -> TempDir {
    let prefix = "package-";
    let made = tempfile::Builder::new()
        .prefix(prefix)
        .tempdir_in(env!("CARGO_TARGET_TMPDIR"));
    let made = made.expect("a directory in target/tmp");
    fs::set_permissions(made.path(), fs::Permissions::from_mode(0o755)).expect("chmod");
    made
}

/// A command in the repository that may call cargo: with the environment that the test was called
/// with.
pub fn tool(program: &str) -> Command {
    let mut tool = Command::new(program);
    tool.current_dir(repository())
        .env("LC_ALL", "C.UTF-8")
        .stdin(std::process::Stdio::null());
    tool
}

/// The packages are made from `target/release`, so that has to be what the tests are about.
#[track_caller]
fn require_release() {
    let packed = repository().join("target/release/dotlockfs");
    let tested = fs::read(dotlockfs()).expect("the program");
    let same = fs::read(&packed).is_ok_and(|packed| packed == tested);
    assert!(same, "these tests pack {packed:?}: run them with --release");
}

/// Makes the package, and gives its path.
#[track_caller]
pub fn package() -> String {
    require_release();
    let said = finish(tool("packaging/deb").arg("--no-build")).success();
    let package = said.lines().last().expect("its name").to_owned();
    assert!(package.ends_with(".deb"), "{said}");
    package
}

/// The smallest Debian and some packages, from where this one has its packages.
#[track_caller]
pub fn debootstrap(root: &Path, packages: &str) {
    require_program("debootstrap", "debootstrap");
    let codename = r#". /etc/os-release; printf %s "$VERSION_CODENAME""#;
    let codename = shell(Who::Root, codename, &[]);
    let mut sources = command(Who::Root, "apt-get");
    sources.args([
        "indextargets",
        "--format",
        "$(ORIGIN) $(RELEASE) $(SITE)",
        "Created-By: Packages",
        "Component: main",
    ]);
    let sources = finish(&mut sources).success();
    let prefix = format!("Debian {codename} ");
    let site = sources.lines().find_map(|line| line.strip_prefix(&prefix));
    let site = site.unwrap_or_else(|| panic!("apt has no {prefix}in {sources}"));
    let cache = Path::new(env!("CARGO_TARGET_TMPDIR")).join("debootstrap");
    fs::create_dir_all(&cache).expect("mkdir");
    let mut debootstrap = tool("debootstrap");
    debootstrap
        .arg("--variant=minbase")
        .arg(format!("--include={packages}"))
        .arg(format!("--cache-dir={}", cache.display()))
        .args([&codename, root.to_str().expect("UTF-8"), site]);
    let made = finish(&mut debootstrap);
    assert!(made.status.success(), "{}{}", made.stdout, made.stderr);
}
