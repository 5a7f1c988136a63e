//! Registries on the loopback interface, and the image that is fetched from them.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use bireme_testing::workspace;
use serde_json::json;

/// Debian's docker-registry. All in one folder serve the same images, each in the network namespace of one contender.
pub(crate) struct Registry {
    child: Child,
    pub(crate) port: u16,
}

impl Registry {
    /// Serves `folder` at `port`; `enter` are the words that enter a network namespace.
    pub(crate) fn start(folder: &Path, port: u16, enter: &[String]) -> Self {
        let config = folder.join(format!("config-{port}-{}.yml", enter.concat().len()));
        let data = folder.join("data");
        let text = format!(
            "version: 0.1\nlog: {{ level: error, accesslog: {{ disabled: true }} }}\nstorage: {{ filesystem: {{ \
             rootdirectory: {} }} }}\nhttp: {{ addr: '127.0.0.1:{port}', secret: x }}\n",
            data.display()
        );
        std::fs::write(&config, text).expect("the registry's folder can be written to");
        let mut line = enter.to_vec();
        line.extend(["docker-registry".to_owned(), "serve".to_owned(), config.display().to_string()]);
        let child = Command::new(&line[0])
            .args(&line[1..])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("docker-registry: {error}"));
        let registry = Self { child, port };
        // Asked from where it serves.
        let mut ask = enter.to_vec();
        let probe = format!("exec 3<>/dev/tcp/127.0.0.1/{port}");
        ask.extend(["bash".to_owned(), "-c".to_owned(), probe]);
        let deadline = Instant::now() + Duration::from_secs(30);
        while !Command::new(&ask[0]).args(&ask[1..]).stderr(Stdio::null()).status().is_ok_and(|status| status.success())
        {
            assert!(Instant::now() < deadline, "docker-registry does not answer");
            std::thread::sleep(Duration::from_millis(50));
        }
        registry
    }

    /// The name of an image in it.
    pub(crate) fn name(&self, image: &str) -> String {
        format!("127.0.0.1:{}/{image}", self.port)
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The layers of the image, as an image of Debian with a runtime and its packages has them: where the files of a layer are
/// taken from, and megabytes of them at most.
const LAYERS: [(&[&str], u64); 10] = [
    (&["/usr/bin"], 60),
    (&["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu"], 90),
    (&["/usr/lib/python3"], 45),
    (&["/usr/lib/python3.11", "/usr/lib/python3.13"], 50),
    (&["/usr/include"], 50),
    (&["/usr/share/doc"], 50),
    (&["/usr/share/locale"], 40),
    (&["examples/whiskers/node_modules", "tests/browser/node_modules", "/usr/lib/node_modules"], 45),
    (&["/usr/share/man", "/usr/share/perl"], 40),
    (&["/usr/share/vim", "/usr/share/icons", "/usr/share/mime"], 40),
];

/// No file of a layer is larger.
const LARGEST: u64 = 24 << 20;

/// What an image consists of.
pub(crate) struct Made {
    pub(crate) name: &'static str,
    pub(crate) files: usize,
    /// Megabytes of all layers, unpacked.
    pub(crate) megabytes: u64,
}

/// Makes an image of ten layers, of files of this very machine, and pushes it; packed as Docker's tools do it, by Go's gzip.
///
/// # Panics
/// When it cannot be made.
pub(crate) fn ten_layers(folder: &Path, registry: &Registry) -> Made {
    let (mut files, mut bytes, mut layers, mut ids) = (0, 0, Vec::new(), Vec::new());
    for (number, (roots, most)) in LAYERS.iter().enumerate() {
        let roots: Vec<PathBuf> =
            roots.iter().map(|root| workspace().join(root)).filter(|root| root.is_dir()).collect();
        let list = chosen(&roots, most * 1_000_000);
        files += list.iter().filter(|byte| **byte == 0).count();
        let (names, layer) = (folder.join("names"), folder.join(format!("{number}.tar")));
        std::fs::write(&names, list).expect("the folder can be written to");
        let archive = Command::new("tar")
            .args(["--format=posix", "--pax-option=delete=atime,delete=ctime,delete=mtime", "--numeric-owner"])
            .args(["--owner=0", "--group=0", "--absolute-names", "--transform=s,^/,,S", "--no-recursion", "--null"])
            .arg("-T")
            .arg(&names)
            .arg("-cf")
            .arg(&layer)
            .status();
        assert!(archive.is_ok_and(|status| status.success()), "tar does not make {}", layer.display());
        bytes += std::fs::metadata(&layer).map_or(0, |about| about.len());
        let sum = Command::new("sha256sum").arg(&layer).output().expect("sha256sum is there");
        ids.push(format!("sha256:{}", String::from_utf8_lossy(&sum.stdout).split(' ').next().unwrap_or_default()));
        layers.push(format!("{number}.tar"));
    }
    let config = json!({
        "architecture": "amd64", "os": "linux", "config": { "Cmd": ["/usr/bin/true"] },
        "rootfs": { "type": "layers", "diff_ids": ids },
    });
    let manifest = json!([{ "Config": "config.json", "RepoTags": ["ten:latest"], "Layers": layers }]);
    std::fs::write(folder.join("config.json"), config.to_string()).expect("the folder can be written to");
    std::fs::write(folder.join("manifest.json"), manifest.to_string()).expect("the folder can be written to");
    let archive = folder.join("image.tar");
    let mut tar = Command::new("tar");
    tar.arg("-C").arg(folder).arg("-cf").arg(&archive).args(["manifest.json", "config.json"]).args(&layers);
    assert!(tar.status().is_ok_and(|status| status.success()), "tar does not make {}", archive.display());
    let push = Command::new("skopeo")
        .args(["--insecure-policy", "copy", "-q", "--dest-tls-verify=false"])
        .arg(format!("docker-archive:{}", archive.display()))
        .arg(format!("docker://{}:latest", registry.name("ten")))
        .status();
    assert!(push.is_ok_and(|status| status.success()), "skopeo does not push the image");
    for name in layers.iter().map(String::as_str).chain(["image.tar", "config.json", "manifest.json", "names"]) {
        let _ = std::fs::remove_file(folder.join(name));
    }
    Made { name: "ten", files, megabytes: bytes / 1_000_000 }
}

/// The names of what is below `roots`, in order and with a zero byte behind each, until it is `most` bytes.
fn chosen(roots: &[PathBuf], most: u64) -> Vec<u8> {
    let found = Command::new("find")
        .args(roots)
        .args(["-xdev", "(", "-type", "d", "-o", "-type", "l", "-o", "-type", "f", ")", "-printf", "%p\\t%y\\t%s\\0"])
        .output()
        .expect("find is there");
    let text = String::from_utf8_lossy(&found.stdout);
    let mut all: Vec<(&str, u64)> = text
        .split('\0')
        .filter_map(|entry| {
            let (rest, size) = entry.rsplit_once('\t')?;
            let (path, kind) = rest.rsplit_once('\t')?;
            let size = if kind == "f" { size.parse().ok()? } else { 0 };
            (size < LARGEST && !path.contains('\u{fffd}')).then_some((path, size))
        })
        .collect();
    all.sort_unstable();
    let mut sum = 0;
    let taken = all.iter().take_while(|(_, size)| {
        sum += size;
        sum <= most
    });
    taken.flat_map(|(path, _)| path.bytes().chain([0])).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_chosen_in_order_and_up_to_a_bound() {
        let folder = std::env::temp_dir().join(format!("bireme-chosen-{}", std::process::id()));
        std::fs::create_dir_all(folder.join("b")).unwrap();
        for (name, size) in [("a", 600), ("b/c", 300), ("b/d", 200)] {
            std::fs::write(folder.join(name), vec![0; size]).unwrap();
        }
        let list = chosen(std::slice::from_ref(&folder), 1000);
        let names: Vec<&str> = std::str::from_utf8(&list).unwrap().split_terminator('\0').collect();
        let at = |name: &str| format!("{}{name}", folder.display());
        std::fs::remove_dir_all(&folder).unwrap();
        assert_eq!(names, [at(""), at("/a"), at("/b"), at("/b/c")]);
    }
}
