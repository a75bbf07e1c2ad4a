//! `kill -9` of a control to which players talk, again and again on the same files: what they were told is kept is there afterwards, no
//! position moves back, and who was forgotten stays forgotten.

use std::{net::SocketAddr, path::Path, sync::Arc, time::Duration};

use bytes::Bytes;
use control::{
    Config, Control,
    config::{HistoryConfig, KeySource},
};
use http::{Method, Request, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::{net::TcpStream, sync::Notify, task::JoinSet};
use tokio_util::sync::CancellationToken;
use victim::Victim;

use crate::{
    issuer::{Key, claims, jwks},
    service::{OPERATOR, config, directory, send, title_of, with},
    tokens::viewers,
};

const PLAYERS: usize = 6;
const OPINIONS: [&str; 3] = ["LIKE", "DISLIKE", "NONE"];
const POSITION: &str = "/videos/film/last-watched-timestamp";

/// Brings to the database what is written all the time, so that this is killed too.
fn killed_config(dir: &Path) -> Config {
    Config {
        viewers: Some(viewers(KeySource::File(dir.join("viewers.jwks")))),
        history: HistoryConfig { flush_every: Duration::from_millis(20), ..HistoryConfig::default() },
        ..config(dir)
    }
}

/// A control in a process of its own, and where it listens.
fn serve(folder: &Path) -> (Victim, SocketAddr) {
    let mut served = Victim::start("killed::serves_until_it_is_killed", folder, 0);
    let addr = served.find_map(|line| line.split_once("listens on ")?.1.parse().ok());
    (served, addr.expect("it says where it listens"))
}

/// The process that is killed: run by the test below.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other half of kill_9_of_a_control"]
async fn serves_until_it_is_killed() {
    let (folder, _) = victim::orders();
    let control = Control::open(killed_config(&folder)).await.unwrap();
    victim::say(format_args!("listens on {}", control.addr()));
    control.run(CancellationToken::new()).await.unwrap();
}

/// A connection that outlasts requests. None once control is dead.
struct Client(SendRequest<Full<Bytes>>);

impl Client {
    async fn connect(addr: SocketAddr) -> Option<Self> {
        let io = TokioIo::new(TcpStream::connect(addr).await.ok()?);
        let (sender, connection) = hyper::client::conn::http1::handshake(io).await.ok()?;
        tokio::spawn(connection);
        Some(Self(sender))
    }

    async fn send(&mut self, request: Request<Full<Bytes>>) -> Option<StatusCode> {
        self.0.ready().await.ok()?;
        let response = self.0.send_request(request).await.ok()?;
        let status = response.status();
        response.into_body().collect().await.ok()?;
        Some(status)
    }
}

/// One viewer's player, and what it was told. A write's number is its position, and its time in tenths of seconds.
struct Player {
    token: String,
    /// The last number that was sent, and the last one that was acknowledged.
    sent: u64,
    acknowledged: u64,
    /// The last opinion that was acknowledged, and one of which nobody knows.
    opinion: &'static str,
    maybe_opinion: Option<&'static str>,
}

impl Player {
    fn new(key: &Key, n: usize) -> Self {
        let token = key.token(&claims(&format!("viewer-{n}")));
        Self { token, sent: 0, acknowledged: 0, opinion: "NONE", maybe_opinion: None }
    }

    /// Writes until control is dead.
    async fn write(mut self, addr: SocketAddr, acknowledged: Arc<Notify>) -> Self {
        let Some(mut client) = Client::connect(addr).await else { return self };
        loop {
            self.sent += 1;
            let number = self.sent;
            let body = json!({ "positionMs": number, "at": at(number) });
            match client.send(with(Method::PATCH, POSITION, &self.token, &body)).await {
                Some(status) => assert_eq!(status, StatusCode::NO_CONTENT),
                None => return self,
            }
            self.acknowledged = number;
            acknowledged.notify_one();
            if number.is_multiple_of(3) {
                let opinion = OPINIONS[(number / 3) as usize % OPINIONS.len()];
                self.maybe_opinion = Some(opinion);
                let rate = with(Method::PATCH, &format!("/videos/film?op={opinion}"), &self.token, &Value::Null);
                match client.send(rate).await {
                    Some(status) => assert_eq!(status, StatusCode::NO_CONTENT),
                    None => return self,
                }
                (self.opinion, self.maybe_opinion) = (opinion, None);
            }
        }
    }

    /// Holds what control has against what the player was told.
    async fn check(&mut self, addr: SocketAddr, round: u64) {
        let get = async |path: &str| {
            let reply = send(addr, with(Method::GET, path, &self.token, &Value::Null)).await;
            assert_eq!(reply.status, StatusCode::OK, "round {round}: {path}: {reply:?}");
            reply.json()
        };
        let stopped = get(POSITION).await;
        let position = stopped["positionMs"].as_u64().unwrap();
        let may_be = self.acknowledged..=self.sent;
        assert!(may_be.contains(&position), "round {round}: {position} is none of {may_be:?}");
        let opinion = get("/videos/film/opinion").await["opinion"].as_str().unwrap().to_owned();
        let known = OPINIONS.into_iter().find(|name| *name == opinion).unwrap();
        assert!(
            known == self.opinion || Some(known) == self.maybe_opinion,
            "round {round}: {known} is neither {} nor {:?}",
            self.opinion,
            self.maybe_opinion
        );
        if position > 0 {
            assert_eq!(get("/me/history?limit=1").await["views"][0]["positionMs"], position, "round {round}");
            assert_eq!(get("/me/continue-watching").await["videos"][0]["positionMs"], position, "round {round}");
        }
        // What was seen once stays.
        (self.acknowledged, self.opinion, self.maybe_opinion) = (position, known, None);
    }
}

/// Someone who is forgotten all the time.
struct Gone {
    token: String,
    sent: u64,
    /// The last number that was sent before she was forgotten.
    forgotten: u64,
}

impl Gone {
    async fn write(mut self, addr: SocketAddr) -> Self {
        let Some(mut client) = Client::connect(addr).await else { return self };
        loop {
            self.sent += 1;
            // By a clock that is ahead, so by control's.
            let body = json!({ "positionMs": self.sent, "at": "2199-01-01T00:00:00Z" });
            let watch = with(Method::PATCH, POSITION, &self.token, &body);
            let forget = with(Method::DELETE, "/me", &self.token, &Value::Null);
            for request in [watch, forget] {
                match client.send(request).await {
                    Some(status) => assert_eq!(status, StatusCode::NO_CONTENT),
                    None => return self,
                }
            }
            self.forgotten = self.sent;
        }
    }

    async fn check(&self, addr: SocketAddr, round: u64) {
        let history = send(addr, with(Method::GET, "/me/history", &self.token, &Value::Null)).await.json();
        let views = history["views"].as_array().unwrap();
        assert!(
            views.iter().all(|view| view["furthestMs"].as_u64().unwrap() > self.forgotten),
            "round {round}: forgotten at {}, there is {views:?}",
            self.forgotten
        );
    }
}

/// The time of an event: tenths of seconds of a day not long ago, so that one view has them all.
fn at(number: u64) -> String {
    let ms = crate::issuer::now_s() / 86_400 * 86_400_000 - 30 * 86_400_000 + number * 100;
    crate::viewers::rfc3339(ms)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_9_of_a_control_costs_no_player_what_it_was_told_is_kept() {
    let (rounds, mut random) = victim::rounds(5);
    let dir = directory();
    let key = Key::eddsa("ed");
    std::fs::write(dir.path().join("viewers.jwks"), jwks(&[&key])).unwrap();
    let mut players: Vec<_> = (0..PLAYERS).map(|n| Player::new(&key, n)).collect();
    let mut gone = Gone { token: key.token(&claims("gone")), sent: 0, forgotten: 0 };

    for round in 0..=rounds {
        let (served, addr) = serve(dir.path());
        if round == 0 {
            let published = send(addr, with(Method::PUT, "/videos/film", OPERATOR, &title_of("film", 900))).await;
            assert_eq!(published.status, StatusCode::CREATED, "{published:?}");
        }
        for player in &mut players {
            player.check(addr, round).await;
        }
        gone.check(addr, round).await;
        if round == rounds {
            break;
        }
        let acknowledged = Arc::new(Notify::new());
        let mut writing: JoinSet<Player> = JoinSet::new();
        for player in players.drain(..) {
            writing.spawn(player.write(addr, Arc::clone(&acknowledged)));
        }
        let forgetting = tokio::spawn(gone.write(addr));
        acknowledged.notified().await;
        // The instant is what is tested.
        tokio::time::sleep(victim::life(&mut random)).await;
        drop(served);
        players = writing.join_all().await;
        gone = forgetting.await.unwrap();
    }
    let writes: u64 = players.iter().map(|player| player.acknowledged).sum();
    println!("{rounds} rounds, {writes} positions acknowledged, {} times forgotten", gone.forgotten);
    assert!(writes > 0);
}
