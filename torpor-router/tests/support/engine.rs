//! A container engine that starts a process for each container, and remembers what it was asked for. It speaks as much of
//! Docker's API as the router uses.

use axum::Router;
use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{Method, StatusCode};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::convert::Infallible;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::{Arc, Mutex, MutexGuard};
use tokio::io::AsyncReadExt;
use tokio::process::Command;
use tokio::runtime::Runtime;
use tokio::sync::watch;

/// What a container has printed, and its status once it has ended.
type Life = watch::Sender<(Vec<u8>, Option<i64>)>;

/// A container.
#[derive(Clone)]
struct Fake {
    /// What it was made of.
    body: Value,
    port: u16,
    life: Arc<Life>,
    kill: Arc<watch::Sender<bool>>,
    /// Whether it is killed because it wants more memory than it may have.
    for_memory: bool,
}

/// What an engine knows.
#[derive(Default)]
pub struct Known {
    pub images: BTreeSet<String>,
    /// Images that are somewhere else.
    pub elsewhere: BTreeSet<String>,
    containers: BTreeMap<String, Fake>,
    /// What was done, in order.
    pub done: Vec<String>,
    made: usize,
}

struct Shared {
    known: Mutex<Known>,
    program: String,
    silent: watch::Sender<bool>,
}

/// An engine.
pub struct FakeEngine {
    shared: Arc<Shared>,
    home: tempfile::TempDir,
    _runtime: Runtime,
}

impl FakeEngine {
    /// One that has an image and whose containers run a program in Python.
    pub fn start(image: &str, program: &str) -> Self {
        let (home, runtime) = (tempfile::tempdir().unwrap(), Runtime::new().unwrap());
        std::fs::write(home.path().join("library.so"), "").unwrap();
        let known = Known { images: [image.to_owned()].into(), ..Known::default() };
        let shared = Arc::new(Shared {
            known: Mutex::new(known),
            program: program.to_owned(),
            silent: watch::Sender::new(false),
        });
        let routes = Router::new().fallback(answer).with_state(shared.clone());
        let socket = home.path().join("engine.sock");
        let listener = runtime.block_on(async { tokio::net::UnixListener::bind(socket) }).unwrap();
        runtime.spawn(async move { axum::serve(listener, routes).await });
        Self { shared, home, _runtime: runtime }
    }

    /// What a router's environment has to name it.
    pub fn variables(&self) -> [(&'static str, String); 2] {
        let path = |name: &str| -> PathBuf { self.home.path().join(name) };
        [
            ("DOCKER_HOST", format!("unix://{}", path("engine.sock").display())),
            ("TORPOR_INTERCEPT", path("library.so").display().to_string()),
        ]
    }

    pub fn known(&self) -> MutexGuard<'_, Known> {
        self.shared.known.lock().unwrap()
    }

    /// Containers that there are, and what they were made of.
    pub fn containers(&self) -> Vec<(String, Value)> {
        self.known().containers.iter().map(|(id, fake)| (id.clone(), fake.body.clone())).collect()
    }

    /// A container of somebody else.
    pub fn add(&self, labels: Value) -> String {
        make(&mut self.known(), json!({"Labels": labels}))
    }

    /// Kills a container's program.
    pub fn kill(&self, id: &str) {
        self.known().containers[id].kill.send_replace(true);
    }

    /// Kills a container's program for the memory that it wants.
    pub fn kill_for_memory(&self, id: &str) {
        self.known().containers.get_mut(id).unwrap().for_memory = true;
        self.kill(id);
    }

    /// Whether it answers nobody, as one that is started anew. Its containers go on.
    pub fn be_silent(&self, silent: bool) {
        self.shared.silent.send_replace(silent);
    }
}

/// A port that nobody has.
pub fn free_port() -> u16 {
    std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port()
}

fn make(known: &mut Known, body: Value) -> String {
    known.made += 1;
    let id = format!("{:064x}", known.made);
    let own = body["ExposedPorts"].as_object().and_then(|ports| ports.keys().next()?.strip_suffix("/tcp"));
    let port = match (body["HostConfig"]["NetworkMode"].as_str(), own) {
        (Some(_), Some(own)) => own.parse().unwrap(),
        _ => free_port(),
    };
    let life = Arc::new(Life::new((Vec::new(), None)));
    known.containers.insert(id.clone(), Fake { body, port, life, kill: Arc::default(), for_memory: false });
    known.done.push("make".to_owned());
    id
}

async fn answer(State(shared): State<Arc<Shared>>, request: Request) -> Response {
    if *shared.silent.borrow() {
        return refuse(StatusCode::SERVICE_UNAVAILABLE, "not yet");
    }
    let (head, body) = request.into_parts();
    let body = axum::body::to_bytes(body, 1 << 20).await.unwrap();
    let path = head.uri.path().to_owned();
    let query = head.uri.query().unwrap_or_default().to_owned();
    let mut parts: Vec<&str> = path.split('/').skip(1).collect();
    if parts[0].starts_with("v1.") {
        parts.remove(0);
    }
    match (&head.method, parts.as_slice()) {
        (&Method::GET, ["version"]) => axum::Json(json!({"ApiVersion": "1.41"})).into_response(),
        (&Method::GET, ["images", name @ .., "json"]) => image(&shared, &name.join("/")),
        (&Method::POST, ["images", "create"]) => pull(&shared, &query),
        (&Method::GET, ["containers", "json"]) => list(&shared, &query),
        (&Method::POST, ["containers", "create"]) => {
            let id = make(&mut shared.known.lock().unwrap(), serde_json::from_slice(&body).unwrap());
            (StatusCode::CREATED, axum::Json(json!({"Id": id, "Warnings": []}))).into_response()
        }
        (method, ["containers", id, rest @ ..]) => {
            let fake = shared.known.lock().unwrap().containers.get(*id).cloned();
            let Some(fake) = fake else { return refuse(StatusCode::NOT_FOUND, "No such container") };
            container(&shared, method, id, &fake, rest).await
        }
        _ => refuse(StatusCode::NOT_FOUND, "page not found"),
    }
}

fn refuse(status: StatusCode, message: &str) -> Response {
    (status, axum::Json(json!({"message": message}))).into_response()
}

fn image(shared: &Shared, name: &str) -> Response {
    match shared.known.lock().unwrap().images.contains(name) {
        true => axum::Json(json!({"Config": {"User": ""}})).into_response(),
        false => refuse(StatusCode::NOT_FOUND, &format!("No such image: {name}")),
    }
}

fn pull(shared: &Shared, query: &str) -> Response {
    let mut known = shared.known.lock().unwrap();
    let name = query.split('&').find_map(|pair| pair.strip_prefix("fromImage=")).unwrap();
    let name = name.replace("%3A", ":").replace("%2F", "/");
    known.done.push(format!("pull {name}"));
    if known.elsewhere.remove(&name) {
        known.images.insert(name.trim_end_matches(":latest").to_owned());
        return axum::Json(json!({"status": "Pulling"})).into_response();
    }
    axum::Json(json!({"errorDetail": {"message": "pull access denied"}, "error": "pull access denied"}))
        .into_response()
}

fn list(shared: &Shared, query: &str) -> Response {
    let known = shared.known.lock().unwrap();
    // Its own label is the only one that has a path in it.
    let is_meant = |fake: &Fake| {
        fake.body["Labels"].as_object().into_iter().flatten().any(|(name, value)| {
            let written = format!("{name}={}", value.as_str().unwrap());
            query.contains(&format!("%22{}%22", written.replace('=', "%3D").replace('/', "%2F")))
        })
    };
    let meant = known.containers.iter().filter(|(_, fake)| is_meant(fake));
    axum::Json(meant.map(|(id, _)| json!({"Id": id})).collect::<Vec<_>>()).into_response()
}

async fn container(shared: &Arc<Shared>, method: &Method, id: &str, fake: &Fake, rest: &[&str]) -> Response {
    let note = |what: &str| shared.known.lock().unwrap().done.push(what.to_owned());
    let over = async || drop(fake.life.subscribe().wait_for(|(_, status)| status.is_some()).await);
    match (method, rest) {
        (&Method::POST, ["start"]) => {
            if fake.body["Cmd"][0] == "nothing" {
                return refuse(StatusCode::BAD_REQUEST, "exec: \"nothing\": executable file not found");
            }
            note("start");
            tokio::spawn(live(shared.program.clone(), fake.clone()));
            StatusCode::NO_CONTENT.into_response()
        }
        (&Method::GET, ["json"]) => {
            let published = json!([{"HostIp": "127.0.0.1", "HostPort": fake.port.to_string()}]);
            let port = fake.body["ExposedPorts"].as_object().unwrap().keys().next().unwrap();
            let status = fake.life.borrow().1;
            // In the network "silent" nobody has an address.
            let networks = match fake.body["HostConfig"]["NetworkMode"].as_str() {
                None => json!({}),
                Some(name) => json!({name: {"IPAddress": if name == "silent" { "" } else { "127.0.0.1" }}}),
            };
            axum::Json(json!({
                "Id": id,
                "State": {"Pid": 0, "Running": status.is_none(), "OOMKilled": fake.for_memory},
                "NetworkSettings": {"Ports": {port: published}, "Networks": networks},
            }))
            .into_response()
        }
        (&Method::POST, ["wait"]) => {
            let (mut life, mut silent) = (fake.life.subscribe(), shared.silent.subscribe());
            let end = async move {
                tokio::select! {
                    ended = life.wait_for(|(_, status)| status.is_some()) => {
                        json!({"StatusCode": ended.unwrap().1}).to_string()
                    }
                    _ = silent.wait_for(|silent| *silent) => String::new(),
                }
            };
            let body = stream::once(async { Ok::<_, Infallible>(Bytes::from(end.await)) });
            Body::from_stream(body).into_response()
        }
        (&Method::GET, ["logs"]) => {
            let pieces = stream::unfold((fake.life.subscribe(), 0), |(mut life, sent)| async move {
                let new =
                    |(printed, status): &(Vec<u8>, Option<i64>)| printed.len() > sent || status.is_some();
                let piece = life.wait_for(new).await.ok()?.0[sent..].to_vec();
                let length = piece.len();
                let head = [&[1, 0, 0, 0][..], &u32::try_from(length).unwrap().to_be_bytes()].concat();
                let frame = Bytes::from([head, piece].concat());
                (length > 0).then(|| (Ok::<_, Infallible>(frame), (life, sent + length)))
            });
            Body::from_stream(pieces).into_response()
        }
        (&Method::POST, ["stop"]) => {
            note("stop");
            fake.kill.send_replace(true);
            over().await;
            StatusCode::NO_CONTENT.into_response()
        }
        (&Method::DELETE, []) => {
            fake.kill.send_replace(true);
            let mut known = shared.known.lock().unwrap();
            known.done.push("remove".to_owned());
            known.containers.remove(id);
            StatusCode::NO_CONTENT.into_response()
        }
        _ => refuse(StatusCode::NOT_FOUND, "page not found"),
    }
}

/// Runs the program of a container to its end.
async fn live(program: String, fake: Fake) {
    let mut command = Command::new("python3");
    command.args(["-c", &program]).env("PORT", fake.port.to_string()).env("CONTAINER", "yes");
    command.stdin(Stdio::null()).stdout(Stdio::piped()).kill_on_drop(true);
    let mut child = command.spawn().unwrap();
    let mut out = child.stdout.take().unwrap();
    let mut killed = fake.kill.subscribe();
    let mut bytes = [0; 4096];
    loop {
        tokio::select! {
            read = out.read(&mut bytes) => match read {
                Ok(length @ 1..) => fake.life.send_modify(|(printed, _)| printed.extend_from_slice(&bytes[..length])),
                _ => break,
            },
            () = async { drop(killed.wait_for(|killed| *killed).await) } => {
                child.kill().await.unwrap();
                break;
            }
        }
    }
    let status = child.wait().await.unwrap().code().unwrap_or(137);
    fake.life.send_modify(|(_, ended)| *ended = Some(status.into()));
}
