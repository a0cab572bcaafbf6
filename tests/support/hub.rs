//! A hub on loopback that answers as the Hugging Face hub does: listings, small files by itself,
//! large ones by redirection to a second port, both in ranges. A script may make any answer go
//! wrong. The unit tests of the hub's client use it, too.

use std::collections::BTreeMap;
use std::io::{BufRead, BufReader, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use serde_json::{Value, json};
use sha1::Sha1;
use sha2::{Digest, Sha256};

/// What a hub has: one model at one commit.
#[derive(Debug, Clone)]
pub struct Repository {
    pub id: String,
    pub commit: String,
    pub files: BTreeMap<String, Vec<u8>>,
}

/// A request as it came.
#[derive(Debug, Clone)]
pub struct Request {
    /// Whether it came to the second port.
    pub elsewhere: bool,
    /// With its query.
    pub path: String,
    /// By name in lowercase.
    pub headers: BTreeMap<String, String>,
    /// How many came before with the same path.
    pub earlier: usize,
}

/// How a request is answered.
#[derive(Debug, Clone)]
pub enum Act {
    /// As it should be.
    Honest,
    /// As it should be, but the connection breaks after this many bytes of the body.
    Cut(usize),
    /// As it should be, but nothing comes after this many bytes of the body, and the connection
    /// stays.
    Stall(usize),
    /// With the last byte of the body changed.
    Corrupt,
    /// With the whole file, whatever part was asked for.
    Whole,
    /// With another status and these headers.
    Status(u16, Vec<(&'static str, String)>),
    /// With this body.
    Json(Value),
}

/// A running hub; it ends with the process.
pub struct Hub {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Request>>>,
}

type Script = Box<dyn Fn(&Request) -> Act + Send + Sync>;

struct Served {
    repository: Repository,
    elsewhere: SocketAddr,
    script: Script,
    seen: Arc<Mutex<Vec<Request>>>,
}

impl Repository {
    /// A model with a config.json, weights of `numbers` numbers in a large file, a tokenizer, and
    /// what is not to be fetched.
    pub fn of(id: &str, numbers: usize) -> Self {
        let text = |text: &str| text.as_bytes().to_vec();
        let files = [
            ("config.json", text(r#"{"architectures": ["X"]}"#)),
            ("model.safetensors", weights(numbers)),
            ("pytorch_model.bin", text("PK pickled")),
            ("README.md", text("# A model")),
            ("tokenizer.json", text("{}")),
        ];
        let files = files.map(|(name, bytes)| (name.to_owned(), bytes)).into();
        Self {
            id: id.to_owned(),
            commit: "0123456789abcdef0123456789abcdef01234567".to_owned(),
            files,
        }
    }

    /// What `/api/models/ID/revision/REVISION?blobs=true` says.
    pub fn listing(&self) -> Value {
        let sibling = |(name, bytes): (&String, &Vec<u8>)| {
            let mut sibling =
                json!({ "rfilename": name, "size": bytes.len(), "blobId": git(bytes) });
            if large(name) {
                sibling["lfs"] =
                    json!({ "sha256": sha256(bytes), "size": bytes.len(), "pointerSize": 134 });
            }
            sibling
        };
        json!({ "id": self.id, "sha": self.commit, "siblings": self.files.iter().map(sibling).collect::<Vec<_>>() })
    }
}

impl Hub {
    /// Serves the repository; `script` says how each request is answered.
    pub fn serve(
        repository: Repository,
        script: impl Fn(&Request) -> Act + Send + Sync + 'static,
    ) -> Self {
        let (listener, elsewhere) = (
            TcpListener::bind("127.0.0.1:0").unwrap(),
            TcpListener::bind("127.0.0.1:0").unwrap(),
        );
        let (address, seen) = (
            listener.local_addr().unwrap(),
            Arc::<Mutex<Vec<Request>>>::default(),
        );
        let (script, seen_too, other): (Script, _, _) = (
            Box::new(script),
            Arc::clone(&seen),
            elsewhere.local_addr().unwrap(),
        );
        let served = Arc::new(Served {
            repository,
            elsewhere: other,
            script,
            seen: seen_too,
        });
        for (listener, elsewhere) in [(listener, false), (elsewhere, true)] {
            let served = Arc::clone(&served);
            std::thread::spawn(move || {
                for stream in listener.incoming().map_while(Result::ok) {
                    let served = Arc::clone(&served);
                    std::thread::spawn(move || served.answer(stream, elsewhere));
                }
            });
        }
        Self { address, seen }
    }

    /// Its base URL.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// What was asked so far.
    pub fn seen(&self) -> Vec<Request> {
        self.seen.lock().unwrap().clone()
    }

    /// What was asked about a file.
    pub fn seen_of(&self, file: &str) -> Vec<Request> {
        let bytes = format!("/{file}");
        self.seen()
            .into_iter()
            .filter(|request| request.path.split('?').next().unwrap().ends_with(&bytes))
            .collect()
    }
}

impl Served {
    fn answer(&self, mut stream: TcpStream, elsewhere: bool) {
        let Some(request) = self.read(&stream, elsewhere) else {
            return;
        };
        let bare = request.path.split('?').next().unwrap();
        let act = (self.script)(&request);
        let body = match &act {
            Act::Status(status, headers) => {
                let headers: String = headers
                    .iter()
                    .map(|(name, value)| format!("{name}: {value}\r\n"))
                    .collect();
                let head = format!(
                    "HTTP/1.1 {status} No\r\n{headers}content-length: 0\r\nconnection: \
                     close\r\n\r\n"
                );
                return drop(stream.write_all(head.as_bytes()));
            }
            Act::Json(value) => value.to_string().into_bytes(),
            _ if bare.starts_with("/api/models/") => {
                self.repository.listing().to_string().into_bytes()
            }
            _ => {
                let prefix = format!(
                    "/{}/resolve/{}/",
                    self.repository.id, self.repository.commit
                );
                let name = bare
                    .strip_prefix(if elsewhere { "/large/" } else { &prefix })
                    .unwrap_or_default();
                let Some(bytes) = self.repository.files.get(name) else {
                    return drop(stream.write_all(
                        b"HTTP/1.1 404 No\r\ncontent-length: 0\r\nconnection: close\r\n\r\n",
                    ));
                };
                if large(name) && !elsewhere {
                    let place = format!("http://{}/large/{name}?Signature=hush", self.elsewhere);
                    let head = format!(
                        "HTTP/1.1 302 Found\r\nlocation: {place}\r\ncontent-length: \
                         0\r\nconnection: close\r\n\r\n"
                    );
                    return drop(stream.write_all(head.as_bytes()));
                }
                bytes.clone()
            }
        };
        // A reader that has gone is no error here.
        let _ = send(&mut stream, &request, (&act, body));
    }

    fn read(&self, stream: &TcpStream, elsewhere: bool) -> Option<Request> {
        let mut lines = BufReader::new(stream).lines().map_while(Result::ok);
        let path = lines.next()?.split(' ').nth(1)?.to_owned();
        let headers = lines.take_while(|line| !line.is_empty());
        let headers = headers
            .filter_map(|line| {
                line.split_once(": ")
                    .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            })
            .collect();
        let mut seen = self.seen.lock().unwrap();
        let earlier = seen.iter().filter(|request| request.path == path).count();
        let request = Request {
            elsewhere,
            path,
            headers,
            earlier,
        };
        seen.push(request.clone());
        Some(request)
    }
}

fn send(
    stream: &mut TcpStream,
    request: &Request,
    (act, mut body): (&Act, Vec<u8>),
) -> std::io::Result<()> {
    if let (Act::Corrupt, Some(last)) = (act, body.last_mut()) {
        *last ^= 1;
    }
    let from: Option<usize> = request.headers.get("range").and_then(|range| {
        range
            .strip_prefix("bytes=")?
            .strip_suffix('-')?
            .parse()
            .ok()
    });
    let (length, from) = (body.len(), from.filter(|_| !matches!(act, Act::Whole)));
    let (status, range) = match from {
        Some(from) if from >= length => (416, format!("content-range: bytes */{length}\r\n")),
        Some(from) => (
            206,
            format!("content-range: bytes {from}-{}/{length}\r\n", length - 1),
        ),
        None => (200, String::new()),
    };
    let part = &body[from.unwrap_or(0).min(length)..];
    write!(
        stream,
        "HTTP/1.1 {status} X\r\n{range}content-length: {}\r\nconnection: close\r\n\r\n",
        part.len()
    )?;
    match act {
        Act::Cut(after) => stream.write_all(&part[..(*after).min(part.len())]),
        Act::Stall(after) => {
            stream.write_all(&part[..(*after).min(part.len())])?;
            std::thread::sleep(std::time::Duration::from_secs(60));
            Ok(())
        }
        _ => stream.write_all(part),
    }
}

/// Weights of one tensor of `numbers` f32, no two alike.
pub fn weights(numbers: usize) -> Vec<u8> {
    let header =
        json!({ "a": { "dtype": "F32", "shape": [numbers], "data_offsets": [0, 4 * numbers] } })
            .to_string();
    let mut bytes = (header.len() as u64).to_le_bytes().to_vec();
    bytes.extend(header.as_bytes());
    bytes.extend((0..numbers).flat_map(|number| (number as f32).to_le_bytes()));
    bytes
}

/// The hash that names a small file.
pub fn git(bytes: &[u8]) -> String {
    hexadecimal(
        &Sha1::new_with_prefix(format!("blob {}\0", bytes.len()))
            .chain_update(bytes)
            .finalize(),
    )
}

/// The hash that names a large file.
pub fn sha256(bytes: &[u8]) -> String {
    hexadecimal(&Sha256::digest(bytes))
}

fn hexadecimal(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn large(name: &str) -> bool {
    name.ends_with(".safetensors") || name.ends_with(".bin")
}
