//! The packages, made from the program that the tests run, and installed and used where that can be
//! done on this machine; and the build that needs no libraries.
//!
//! They need the network the first time: for a Debian, for cargo-deb, and for Rust's library for musl.

mod common;

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};

use common::debian::{debootstrap, on_disk, package, repository, tool};
use common::{
    ALICE, Mount, Who, command, copy_command, directory, dotlockfs, finish, require_program,
    require_root, shell,
};

/// What every kind of package holds below `/usr`, and more.
const FILES: [&str; 5] = [
    "bin/dotlockfs",
    "share/bash-completion/completions/dotlockfs",
    "share/fish/vendor_completions.d/dotlockfs.fish",
    "share/doc/dotlockfs/third-party-licenses.txt",
    "share/man/man8/mount.fuse.dotlockfs.8",
];

fn version() -> &'static str {
    env!("CARGO_PKG_VERSION")
}

/// What `packaging/install` says that it has put there, without the directory before it.
#[track_caller]
fn install(to: &Path, more: &[(&str, &str)]) -> Vec<String> {
    let mut install = tool("packaging/install");
    install.env("DESTDIR", to).env("BINARY", dotlockfs());
    let said = finish(install.envs(more.iter().copied())).success();
    let prefix = to.to_str().expect("UTF-8");
    let lines = said
        .lines()
        .map(|line| line.strip_prefix(prefix).expect("below DESTDIR"));
    lines.map(str::to_owned).collect()
}

#[track_caller]
fn assert_has(list: &[String], wanted: &str) {
    assert!(
        list.iter().any(|path| path == wanted),
        "no {wanted} in {list:#?}"
    );
}

/// What a package does when it is removed: services end, and other mounts are named.
#[track_caller]
fn assert_removal(script: &str) {
    for part in ["systemctl stop 'dotlockfs@*.service'", "fuse.dotlockfs"] {
        assert!(script.contains(part), "no {part}: {script}");
    }
}

/// The version stands in several places.
#[test]
fn all_packages_have_the_version_of_the_program() {
    for (file, line) in [
        (
            "packaging/rpm/dotlockfs.spec",
            format!("\nVersion:        {}\n", version()),
        ),
        (
            "packaging/arch/PKGBUILD",
            format!("\npkgver={}\n", version()),
        ),
        (
            "packaging/debian/changelog",
            format!("dotlockfs ({}-", version()),
        ),
    ] {
        let text = fs::read_to_string(repository().join(file)).expect("read");
        assert!(text.contains(&line), "{file}: no {line:?}");
    }
}

/// What a user without a package does.
#[test]
fn install_puts_everything_into_place() {
    let made = directory();
    let installed = install(made.path(), &[]);
    for file in FILES {
        assert_has(&installed, &format!("/usr/local/{file}"));
    }
    for page in [
        "man1/dotlockfs.1",
        "man1/dotlockfs-run.1",
        "man5/dotlockfs.toml.5",
    ] {
        assert_has(&installed, &format!("/usr/local/share/man/{page}"));
    }
    for name in ["mount.dotlockfs", "mount.fuse.dotlockfs"] {
        let link = made.path().join("usr/sbin").join(name);
        let target = fs::canonicalize(link).expect("a link that leads somewhere");
        let program = made.path().join("usr/local/bin/dotlockfs");
        assert_eq!(target, fs::canonicalize(program).expect("the program"));
    }
    let mut helper = command(Who::Root, made.path().join("usr/sbin/mount.dotlockfs"));
    let said = finish(helper.arg("--version")).success();
    assert_eq!(said, format!("mount.dotlockfs {}\n", version()));
    // What is installed once more takes the place of the first.
    assert_eq!(install(made.path(), &[]), installed);
    // Units name the program where it is.
    for path in installed.iter().filter(|path| path.ends_with(".service")) {
        let unit = made.path().join(&path[1..]);
        let unit = fs::read_to_string(unit).expect("read");
        let start = unit.lines().find(|line| line.starts_with("ExecStart="));
        assert!(
            start
                .expect("ExecStart=")
                .starts_with("ExecStart=/usr/local/bin/dotlockfs ")
        );
    }
}

#[test]
fn install_says_what_is_missing() {
    let made = directory();
    let missing = made.path().join("missing");
    let mut install = tool("packaging/install");
    install.env("DESTDIR", made.path()).env("BINARY", &missing);
    let refused = finish(&mut install);
    assert_eq!(refused.status.code(), Some(1));
    assert!(
        refused.stderr.contains("missing: no such program"),
        "{refused:?}"
    );
    assert_eq!(fs::read_dir(made.path()).expect("list").count(), 0);

    // For a package also the licenses. Cargo has no sources in an empty directory.
    let no_crates = directory();
    install
        .env("BINARY", dotlockfs())
        .env("CARGO_HOME", no_crates.path());
    let refused = finish(&mut install);
    assert_eq!(refused.status.code(), Some(1));
    let why = "packaging/install: a package needs third-party-licenses.txt; LICENSES may say where";
    assert!(refused.stderr.contains(why), "{refused:?}");
    assert_eq!(fs::read_dir(made.path()).expect("list").count(), 0);

    // Root, whom sudo makes, often has no cargo. Nobody is given what is installed here.
    let prefix = made.path().join("usr");
    install
        .env_remove("DESTDIR")
        .env("PREFIX", &prefix)
        .env("HELPERDIR", made.path().join("sbin"));
    let done = finish(&mut install);
    assert!(done.status.success(), "{done:?}");
    let left_out = "dotlockfs/third-party-licenses.txt is left out\n";
    assert!(done.stderr.ends_with(left_out), "{done:?}");
    let docs = prefix.join("share/doc/dotlockfs");
    assert!(docs.join("LICENSE-MIT").exists(), "{done:?}");
    assert!(!docs.join("third-party-licenses.txt").exists(), "{done:?}");
}

/// What `packaging/licenses` tells of a crate: its terms, and what the file has under the numbers of
/// its texts.
fn licenses_of<'a>(all: &'a str, name: &str, version: &str) -> Option<(&'a str, Vec<&'a str>)> {
    let title = format!("\n{name} {version}: ");
    let (_, rest) = all.split_once(&title)?;
    let mut lines = rest.lines();
    let terms = lines.next()?;
    let about = lines.take_while(|line| line.starts_with("    "));
    let numbers = about.filter_map(|line| line.strip_suffix(']')?.rsplit_once(" ["));
    let texts = numbers.map(|(_, number)| {
        let begin = format!("{}\n[{number}]\n\n", "-".repeat(80));
        let (_, text) = all
            .split_once(&begin)
            .unwrap_or_else(|| panic!("no [{number}]"));
        text.split(&"-".repeat(80)).next().unwrap_or_default()
    });
    Some((terms, texts.collect()))
}

/// By what cargo says that it links, and by what is in the program.
#[test]
fn the_licenses_of_all_that_is_in_the_program_are_installed() {
    let made = directory();
    install(made.path(), &[]);
    let file = "usr/local/share/doc/dotlockfs/third-party-licenses.txt";
    let all = fs::read_to_string(made.path().join(file)).expect("read");
    let again = finish(&mut tool("packaging/licenses")).success();
    assert!(again == all, "the file is not always the same");

    let mut tree = tool("cargo");
    tree.args(["tree", "--locked", "--offline", "--prefix=none"]);
    tree.args(["--edges=normal,no-proc-macro", "--format={p}|{l}"]);
    let tree = finish(&mut tree).success();
    let mut crates = 0;
    for line in tree.lines() {
        let (name, rest) = line.split_once(" v").expect("name and version");
        let (version, terms) = rest.split_once('|').expect("a license");
        if name == "dotlockfs" {
            continue;
        }
        crates += 1;
        let terms = terms.trim_end_matches(" (*)");
        let (told, texts) = licenses_of(&all, name, version)
            .unwrap_or_else(|| panic!("{name} {version} is not in {file}"));
        assert_eq!(told, terms, "{name}");
        // Each has one. One whose source had none would have to be looked at.
        assert!(!texts.is_empty(), "{name} has no text");
        let known = [
            "Permission",
            "permission",
            "Apache License",
            "public domain",
        ];
        let is_one = |text: &&str| known.iter().any(|word| text.contains(word));
        assert!(texts.iter().any(is_one), "{name}: {texts:?}");
    }
    assert!(crates > 50, "{tree}");

    // Where a crate's source was stands in the program, for messages of panics and debuggers.
    let program = fs::read(dotlockfs()).expect("the program");
    let program = String::from_utf8_lossy(&program);
    let mut found = 0;
    for path in program.split("/registry/src/").skip(1) {
        let ends = |letter: char| !letter.is_ascii_alphanumeric() && !"-+._".contains(letter);
        let folder = path.split('/').nth(1).expect("a crate's directory");
        let folder = folder.split(ends).next().expect("its name");
        let dashes = folder.match_indices('-');
        let mut splits = dashes.map(|(at, _)| (&folder[..at], &folder[at + 1..]));
        let told = splits.any(|(name, version)| licenses_of(&all, name, version).is_some());
        assert!(told, "{folder} is in the program, but not in {file}");
        found += 1;
    }
    assert!(found > 50, "{found}");
    assert_eq!(all.matches("\nRust's standard library ").count(), 1);
}

/// Made, looked at by lintian, and on a bare Debian installed, used, upgraded and removed.
#[test]
fn the_debian_package_comes_works_and_goes() {
    require_root();
    require_program("lintian", "lintian");
    let package = package();
    let mut lintian = command(Who::Root, "lintian");
    lintian.args([
        "--allow-root",
        "--fail-on=error,warning",
        "--tag-display-limit=0",
        &package,
    ]);
    let found = finish(&mut lintian);
    assert!(found.status.success(), "{}{}", found.stdout, found.stderr);

    let made = on_disk();
    let root = made.path().join("debian");
    debootstrap(&root, "fuse3,man-db");
    let mut use_it = command(Who::Root, "unshare");
    use_it.args([
        "--mount",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        "bash",
    ]);
    use_it
        .arg(repository().join("tests/package/debian.sh"))
        .arg(&root)
        .arg(&package);
    let said = finish(&mut use_it);
    assert!(said.status.success(), "{}{}", said.stdout, said.stderr);
    assert!(said.stdout.ends_with("== all is well\n"), "{}", said.stdout);
}

/// By rpmbuild, which packs what the spec lists, and fails if there is something else.
#[test]
fn the_rpm_holds_the_same() {
    require_program("rpmbuild", "rpm");
    require_program("bsdtar", "libarchive-tools");
    let made = on_disk();
    let define = |name: &str, value: &Path| format!("{name} {}", value.display());
    let mut build = tool("rpmbuild");
    build
        .arg("-bb")
        .args(["--define", &define("_topdir", made.path())])
        .args(["--define", &define("checkout", repository())])
        .args(["--define", &define("binary", &dotlockfs())])
        .arg("packaging/rpm/dotlockfs.spec");
    // An installation that fails does not go unnoticed.
    let mut failing = tool("rpmbuild");
    failing
        .args(build.get_args())
        .args(["--define", "binary /missing"]);
    let failed = finish(&mut failing);
    assert!(!failed.status.success(), "{failed:?}");
    assert!(failed.stderr.contains("(%install)"), "{failed:?}");
    finish(&mut build).success();
    let found = shell(Who::Root, r#"find "$1/RPMS" -name '*.rpm'"#, &[made.path()]);
    let rpm = Path::new(found.trim_end());
    assert_removal(&shell(Who::Root, r#"rpm -qp --scripts "$1""#, &[rpm]));
    let list = shell(Who::Root, r#"rpm -qlp "$1""#, &[rpm]);
    // Whether pages are compressed, rpm decides; Debian's does not.
    let names = list.lines().map(|line| line.trim_end_matches(".gz"));
    let list: Vec<String> = names.map(str::to_owned).collect();
    for file in FILES {
        assert_has(&list, &format!("/usr/{file}"));
    }
    for page in [
        "man1/dotlockfs-run.1",
        "man5/dotlockfs.toml.5",
        "man8/mount.dotlockfs.8",
    ] {
        assert_has(&list, &format!("/usr/share/man/{page}"));
    }
    assert_has(&list, "/usr/sbin/mount.dotlockfs");
    let unpack = r#"cd "$1"; bsdtar -xf "$2"; usr/sbin/mount.dotlockfs --version"#;
    let said = shell(Who::Root, unpack, &[made.path(), rpm]);
    assert_eq!(said, format!("mount.dotlockfs {}\n", version()));
}

/// By makepkg itself, which root may not run. Nothing is compiled.
#[test]
fn the_arch_package_holds_the_same() {
    require_root();
    require_program("makepkg", "makepkg");
    require_program("bsdtar", "libarchive-tools");
    require_program("fakeroot", "fakeroot");
    let made = on_disk();
    // A checkout that the user can read, with the program as cargo puts it.
    let checkout = made.path().join("checkout");
    let copy = r#"mkdir -p "$2/target/release"
        cp -r "$1/packaging" "$1"/*.md "$1"/LICENSE-* "$2/""#;
    shell(Who::Root, copy, &[repository(), &checkout]);
    copy_command(&checkout.join("target/release/dotlockfs"));
    let licenses = made.path().join("licenses");
    let printed = finish(&mut tool("packaging/licenses")).success();
    fs::write(&licenses, printed).expect("write");
    shell(Who::Root, r#"chown -R 1000:1000 "$1""#, &[&checkout]);
    chown(made.path(), Some(1000), Some(1000)).expect("chown");
    let folder = checkout.join("packaging/arch");
    let mut make = command(ALICE, "makepkg");
    make.args(["--repackage", "--nodeps", "--noconfirm"])
        .current_dir(&folder)
        .env("HOME", made.path())
        .env("PKGEXT", ".pkg.tar.gz")
        // Cargo is another user's here.
        .env("LICENSES", &licenses)
        // It is not asked anything, but has to be there.
        .env("PACMAN", "true");
    let said = finish(&mut make);
    assert!(said.status.success(), "{}{}", said.stdout, said.stderr);
    let list = shell(
        ALICE,
        r#"bsdtar -tf "$1"/dotlockfs-*.pkg.tar.gz"#,
        &[&folder],
    );
    let list: Vec<String> = list.lines().map(str::to_owned).collect();
    // Pages are compressed, and licenses have a place of their own.
    let elsewhere = |file: &&&str| file.contains("/man/") || file.contains("license");
    for file in FILES.iter().filter(|file| !elsewhere(file)) {
        assert_has(&list, &format!("usr/{file}"));
    }
    for file in [
        "bin/mount.dotlockfs",
        "share/man/man1/dotlockfs.1.gz",
        "share/licenses/dotlockfs/LICENSE-MIT",
        "share/licenses/dotlockfs/third-party-licenses.txt",
    ] {
        assert_has(&list, &format!("usr/{file}"));
    }
    let script = r#"bsdtar -xOf "$1"/dotlockfs-*.pkg.tar.gz .INSTALL"#;
    assert_removal(&shell(ALICE, script, &[&folder]));
    let unpack = r#"cd "$1"; bsdtar -xf packaging/arch/dotlockfs-*.pkg.tar.gz usr
        usr/bin/mount.dotlockfs --version"#;
    let said = shell(ALICE, unpack, &[&checkout]);
    assert_eq!(said, format!("mount.dotlockfs {}\n", version()));
}

/// Built with musl, it serves users as the other does, in a root that holds nothing else.
#[test]
fn the_static_build_needs_nothing_of_the_host() {
    require_root();
    let said = finish(&mut tool("packaging/static")).success();
    let program: PathBuf = repository().join(said.lines().last().expect("its name"));
    let licenses = program.with_file_name("third-party-licenses.txt");
    let licenses = fs::read_to_string(licenses).expect("read");
    for part in ["\nlibc ", "\nmusl: MIT\n"] {
        assert!(licenses.contains(part), "no {part:?}");
    }
    let bare = directory();
    shell(
        Who::Root,
        r#"mkdir "$1/proc"; cp "$2" "$1/dotlockfs""#,
        &[bare.path(), &program],
    );
    let mut alone = command(Who::Root, "chroot");
    let said = finish(alone.arg(bare.path()).args(["/dotlockfs", "--version"])).success();
    assert_eq!(said, format!("dotlockfs {}\n", version()));

    let (source, place) = (directory(), directory());
    fs::set_permissions(source.path(), fs::Permissions::from_mode(0o777)).expect("chmod");
    let mut mount = command(Who::Root, &program);
    mount
        .args(["-o", "allow_other"])
        .arg(source.path())
        .arg(place.path());
    let mount = Mount::started_by(&mut mount, place.path());
    let append = r#"for n in 1 2 3; do (for m in 1 2 3; do echo line >>"$1/log"; done) & done; wait
        wc -l <"$1/log"; stat -c %u "$1/log""#;
    let said = shell(ALICE, append, &[mount.path()]);
    assert_eq!(said.split_whitespace().collect::<Vec<_>>(), ["9", "1000"]);
    mount.unmount();
    let lines = fs::read_to_string(source.path().join("log")).expect("read");
    assert_eq!(lines, "line\n".repeat(9));
}
