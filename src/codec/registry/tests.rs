//! The client of registries, against one of a few lines.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::*;

type Request = (String, String, Value);

/// A registry of a few lines: `reply` gets method and path, body and the number of the request.
async fn serve(
    reply: impl Fn(&str, &Value, usize) -> (u16, Value) + Send + 'static,
) -> (RegistrySettings, Arc<Mutex<Vec<Request>>>) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!(
        "http://me:s%20ecret@{}/base/",
        listener.local_addr().unwrap()
    );
    let seen = Arc::new(Mutex::new(Vec::new()));
    let requests = Arc::clone(&seen);
    tokio::spawn(async move {
        loop {
            let (mut socket, _) = listener.accept().await.unwrap();
            let mut bytes = Vec::new();
            let (head, body) = loop {
                socket.read_buf(&mut bytes).await.unwrap();
                let text = String::from_utf8_lossy(&bytes).into_owned();
                let Some((head, body)) = text.split_once("\r\n\r\n") else {
                    continue;
                };
                let length = head.lines().find_map(|line| {
                    line.to_lowercase()
                        .strip_prefix("content-length: ")
                        .map(str::to_owned)
                });
                if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                    break (
                        head.to_owned(),
                        serde_json::from_str(body).unwrap_or(Value::Null),
                    );
                }
            };
            let line = head
                .lines()
                .next()
                .unwrap()
                .trim_end_matches(" HTTP/1.1")
                .to_owned();
            let number = requests.lock().len();
            let (status, answer) = reply(&line, &body, number);
            requests.lock().push((line, head, body));
            let answer = answer.to_string();
            let response = format!(
                "HTTP/1.1 {status} X\r\ncontent-length: {}\r\nconnection: \
                 close\r\n\r\n{answer}",
                answer.len()
            );
            socket.write_all(response.as_bytes()).await.unwrap();
        }
    });
    (RegistrySettings::at(url), seen)
}

#[tokio::test]
async fn push_asks_for_the_level_and_registers_every_subject() {
    let (settings, seen) = serve(|line, _, number| match line.split_once(' ').unwrap() {
        // As a registry that keeps levels only for subjects that exist.
        ("PUT", _) if number % 3 == 0 => (404, json!({ "error_code": 40401 })),
        ("PUT", _) => (200, json!({ "compatibility": "BACKWARD_TRANSITIVE" })),
        _ => (200, json!({ "id": 100 + number })),
    })
    .await;
    let ids = Registry::build(&settings)
        .unwrap()
        .ids("media", true)
        .await
        .unwrap();
    let seen = seen.lock();
    assert_eq!(seen.len(), subjects("media").count() * 3);
    let (line, head, body) = &seen[1];
    assert_eq!(line, "POST /base/subjects/media.frames.v1-value/versions");
    assert_eq!(body["schema"], schema_text(PayloadKind::Frame));
    assert!(
        head.contains("Basic bWU6cyBlY3JldA=="),
        "the URL's login, decoded: {head}"
    );
    assert_eq!(seen[0].2["compatibility"], "BACKWARD_TRANSITIVE");
    assert!(
        seen.iter()
            .any(|(line, ..)| line.ends_with("/subjects/media.frames.v1.dlq-value/versions"))
    );
    let mut expected = SchemaIds::all(0);
    for (index, (_, _, (kind, dead))) in subjects("media").enumerate() {
        expected.set(kind, dead, 101 + 3 * index as u32);
    }
    assert_eq!(ids, expected);
}

#[tokio::test]
async fn verdicts_tell_new_compatible_and_broken() {
    let (settings, _) = serve(|line, _, _| {
        let compatible = line.starts_with("POST /base/compatibility/subjects/")
            && line.ends_with("/versions?verbose=true");
        match line {
            _ if line.starts_with("GET") => (200, json!([1, 2])),
            _ if !compatible => (500, Value::Null),
            _ if line.contains("captions") => (
                200,
                json!({ "is_compatible": false, "messages": ["field gone"] }),
            ),
            _ if line.contains("dlq") => {
                (404, json!({ "error_code": 40401, "message": "not found" }))
            }
            _ => (200, json!({ "is_compatible": true })),
        }
    })
    .await;
    let verdicts = Registry::build(&settings)
        .unwrap()
        .check("m")
        .await
        .unwrap();
    let of = |subject: &str| {
        verdicts
            .iter()
            .find(|(name, _)| name == subject)
            .unwrap()
            .1
            .clone()
    };
    assert_eq!(of("m.frames.v1-value"), Verdict::Compatible);
    assert_eq!(
        of("m.captions.v1-value"),
        Verdict::Incompatible(vec!["field gone".to_owned()])
    );
    assert_eq!(of("m.events.v1.dlq-value"), Verdict::New);
}

#[tokio::test]
async fn refusals_say_what_to_do() {
    let (settings, _) = serve(|_, _, _| (404, json!({ "message": "Subject not found" }))).await;
    let error = Registry::build(&settings)
        .unwrap()
        .ids("media", false)
        .await
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("media.frames.v1-value") && error.contains("schemas push"),
        "{error}"
    );
    assert!(!error.contains("ecret"), "{error}");
    let (settings, _) = serve(|_, _, _| (409, json!({ "message": "incompatible" }))).await;
    assert!(
        Registry::build(&settings)
            .unwrap()
            .register("s", PayloadKind::Frame)
            .await
            .unwrap_err()
            .to_string()
            .contains("409: incompatible")
    );
    assert!(Registry::build(&RegistrySettings::at("localhost:8081")).is_err());
}

#[tokio::test]
async fn a_busy_registry_is_asked_again() {
    let (settings, seen) = serve(|_, _, number| {
        if number == 0 {
            (503, Value::Null)
        } else {
            (200, json!({ "id": 7 }))
        }
    })
    .await;
    assert_eq!(
        Registry::build(&settings)
            .unwrap()
            .register("s", PayloadKind::Frame)
            .await
            .unwrap(),
        7
    );
    assert_eq!(
        seen.lock()
            .iter()
            .map(|(line, ..)| line.as_str())
            .collect::<Vec<_>>(),
        ["POST /base/subjects/s/versions"; 2]
    );
}

#[test]
fn settings_hide_the_login() {
    let mut settings = RegistrySettings::at("http://me:hush@host/x");
    settings.login = Some(("you".to_owned(), "quiet".to_owned()));
    let shown = format!("{settings:?}");
    assert!(
        !shown.contains("hush") && !shown.contains("quiet") && shown.contains("host"),
        "{shown}"
    );
}
