//! Whole packages: the same every time, of chosen platforms, with credentials; what `show` and `verify` print of them.

use std::io::Write as _;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::support::{
    Auth, Images, PASSWORD, TestRegistry, USERNAME, noise, run, run_program, show, write,
};

/// An image for two platforms in a registry that asks for a password.
struct Source {
    registry: TestRegistry,
    images: Images,
    dir: TempDir,
}

impl Source {
    fn start() -> Self {
        let dir = TempDir::new().unwrap();
        let mut images = Images::default();
        images.add("demo/app", "v1", &[noise(1, 200_000), noise(2, 50_000)]);
        images.write_layout(&dir.path().join("layout"));
        let source = Self {
            registry: TestRegistry::start(Auth::Basic),
            images,
            dir,
        };
        source.push("0", "demo/app:v1");
        source
    }

    /// Copies an image of the layout to the registry, with skopeo.
    fn push(&self, name: &str, image: &str) {
        let mut skopeo = Command::new("skopeo");
        skopeo
            .args([
                "copy",
                "--quiet",
                "--all",
                "--insecure-policy",
                "--preserve-digests",
                "--dest-tls-verify=false",
            ])
            .arg(format!("--dest-creds={USERNAME}:{PASSWORD}"))
            .arg(format!(
                "oci:{}:{name}",
                self.dir.path().join("layout").display()
            ))
            .arg(format!("docker://{}/{image}", self.registry.address()));
        run("skopeo", &mut skopeo);
    }

    /// Runs `violetd COMMAND` in the folder of this source, with `password` on standard input.
    fn violetd(&self, command: &str, arguments: &[&str], password: &str) -> Output {
        let mut child = Command::new(env!("CARGO_BIN_EXE_violetd"))
            .arg(command)
            .args(arguments)
            .args(["--plain", "--username", USERNAME, "--password-stdin"])
            .current_dir(self.dir.path())
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        writeln!(child.stdin.take().unwrap(), "{password}").unwrap();
        child.wait_with_output().unwrap()
    }

    fn succeed(&self, command: &str, arguments: &[&str]) -> String {
        let output = self.violetd(command, arguments, PASSWORD);
        let words = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{words}");
        words
    }

    fn create(&self, options: &[&str]) {
        let image = format!("{}/demo/app:v1", self.registry.address());
        let arguments = [&["work", "--type", "images", "--image", &image], options].concat();
        self.succeed("create", &arguments);
    }

    fn read(&self, name: &str) -> Vec<u8> {
        std::fs::read(self.dir.path().join(name)).unwrap()
    }
}

#[test]
fn a_package_of_a_registry_keeps_the_index_and_is_the_same_every_time() {
    let source = Source::start();
    source.create(&[]);
    source.succeed("package", &["work", "--output", "one.tgz"]);
    source.succeed("package", &["work", "--output", "two.tgz"]);
    assert!(
        source.read("one.tgz") == source.read("two.tgz"),
        "the packages differ"
    );

    let shown = show(&source.dir.path().join("one.tgz"));
    let root = source.images.placed[0].root.digest;
    assert_eq!(shown["images"][0]["digest"], root.to_string());
    assert_eq!(shown["type"], "images");
    assert_eq!(
        shown["platforms"],
        serde_json::json!(["linux/amd64", "linux/arm64"])
    );
}

#[test]
fn chosen_platforms_give_a_new_index_and_the_command_says_so() {
    let source = Source::start();
    source.create(&["--platforms", "linux/amd64"]);
    let words = source.succeed("package", &["work", "--output", "one.tgz"]);
    let old = source.images.placed[0].root.digest.to_string();
    assert!(
        words.contains("platforms were left out") && words.contains(&old),
        "{words}"
    );

    let shown = show(&source.dir.path().join("one.tgz"));
    assert_eq!(shown["platforms"], serde_json::json!(["linux/amd64"]));
    let new = shown["images"][0]["digest"].as_str().unwrap();
    assert!(new != old && words.contains(new), "{words}");

    let absent = source.violetd("create", &["absent", "--image", "oci:layout"], PASSWORD);
    assert!(absent.status.success(), "{absent:?}");

    // Refused as early as may be, and again where somebody has changed the manifest.
    let path = source.dir.path().join("work/manifest.yaml");
    let manifest = String::from_utf8(source.read("work/manifest.yaml")).unwrap();
    write(&path, manifest.replace("linux/amd64", "linux/s390x"));
    let image = format!("{}/demo/app:v1", source.registry.address());
    let other = ["other", "--image", &image, "--platforms", "linux/s390x"];
    for (command, arguments) in [
        ("create", &other[..]),
        ("package", &["work", "--output", "two.tgz"]),
    ] {
        let refused = source.violetd(command, arguments, PASSWORD);
        let words = String::from_utf8_lossy(&refused.stderr);
        assert_eq!(refused.status.code(), Some(66), "{words}");
        assert!(words.contains("found linux/amd64, linux/arm64"), "{words}");
    }
    assert!(!source.dir.path().join("two.tgz").exists());
    assert!(!source.dir.path().join("other").exists());
}

#[test]
fn a_tag_that_moves_after_create_changes_nothing() {
    let mut source = Source::start();
    source.create(&[]);
    source.images.add("demo/other", "v1", &[noise(9, 10_000)]);
    source
        .images
        .write_layout(&source.dir.path().join("layout"));
    source.push("1", "demo/app:v1");
    source.succeed("package", &["work", "--output", "one.tgz"]);
    let shown = show(&source.dir.path().join("one.tgz"));
    let root = source.images.placed[0].root.digest;
    assert_eq!(shown["images"][0]["digest"], root.to_string());
}

#[test]
fn refused_credentials_and_absent_images_have_their_exit_codes() {
    let source = Source::start();
    let address = source.registry.address();
    let image = format!("{address}/demo/app:v1");
    let refused = source.violetd("create", &["work", "--image", &image], "wrong");
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(77), "{words}");
    assert!(words.contains(&image) && words.contains("hint:"), "{words}");

    let absent = format!("{address}/demo/app:v9");
    let refused = source.violetd("create", &["work", "--image", &absent], PASSWORD);
    let words = String::from_utf8_lossy(&refused.stderr).into_owned();
    assert_eq!(refused.status.code(), Some(66), "{words}");
    assert!(!source.dir.path().join("work").exists());
}

#[test]
fn show_and_verify_print_what_violet_prints() {
    let source = Source::start();
    let image = format!("{}/demo/app:v1", source.registry.address());
    let arguments = ["work", "--artifact", &image, "--name", "app-operator"];
    source.succeed("create", &arguments);
    source.succeed("package", &["work", "--output", "app.tgz", "--checksum"]);
    let package = source.dir.path().join("app.tgz").display().to_string();

    let shown = run_program(&["show", "--all", &package]);
    assert_eq!(
        String::from_utf8(shown.stdout).unwrap(),
        format!(
            "Name: app-operator\nType: bundle\nArch: [linux/amd64 linux/arm64]\nVersion: v1\n\
             Artifact: {image}\nRelateImages: []\n"
        )
    );

    let verified = run_program(&["verify", &package]);
    assert_eq!(verified.status.code(), Some(0));
    assert_eq!(
        String::from_utf8(verified.stdout).unwrap(),
        format!(
            "verify path: {package}\n====== Verification Summary ======\n\
             Verified successfully with GPG: 0 file(s)\n\
             Verified successfully with checksum: 1 file(s)\n  - {package}\n\
             Verification failed: 0 file(s)\nNo verification file found: 0 file(s)\n"
        )
    );
}

#[test]
fn a_file_that_skopeo_logs_in_to_opens_the_registry() {
    let source = Source::start();
    let path = |name: &str| source.dir.path().join(name).display().to_string();
    let (work, logins) = (path("work"), path("auth.json"));
    source.registry.log_in(logins.as_ref());
    let image = format!("{}/demo/app:v1", source.registry.address());
    let create = [
        "create", &work, "--type", "images", "--image", &image, "--plain",
    ];
    let refused = run_program(&create);
    assert!(!refused.status.success(), "{refused:?}");
    let created = run_program(&[&create, &["--docker-config", &logins][..]].concat());
    assert!(created.status.success(), "{created:?}");
    let package = path("one.tgz");
    let package = [
        "package",
        &work,
        "--output",
        &package,
        "--plain",
        "--authfile",
        &logins,
    ];
    let packed = run_program(&package);
    assert!(packed.status.success(), "{packed:?}");
    let shown = show(&source.dir.path().join("one.tgz"));
    let root = source.images.placed[0].root.digest;
    assert_eq!(shown["images"][0]["digest"], root.to_string());

    // Another registry is none of those that it knows.
    write(
        logins.as_ref(),
        r#"{"auths": {"registry.example": {"auth": "hunter2"}}}"#,
    );
    let refused = run_program(&[&create, &["--docker-config", &logins][..]].concat());
    assert!(!refused.status.success(), "{refused:?}");
}
