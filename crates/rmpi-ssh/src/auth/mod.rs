//! Proving who we are: keys named by options or configuration, keys of the agent, default key files; each with
//! its certificate. Keys that need a passphrase typed come last. Public keys only: no other method is ever used.

mod agent;
mod files;
mod prompt;

pub use prompt::{Ask, ask_on_terminal};

pub(crate) use files::KeyRing;

use crate::client::handler::{HostCheck, Words, last_words};
use crate::config::HostConfig;
use crate::keys::describe;
use agent::Agent;
use files::{Identity, Loaded};
use rmpi_types::{LaunchFault, Stage};
use russh::client::{AuthResult, Handle};
use russh::keys::agent::AgentIdentity;
use russh::keys::{Certificate, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use russh::{MethodKind, MethodSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Keys of the agent that are offered: servers close the connection after a few.
const MAX_AGENT_KEYS: usize = 16;

/// Something to log in with.
enum Candidate {
    File { path: PathBuf, key: Arc<PrivateKey> },
    FileCert { path: PathBuf, key: Arc<PrivateKey>, cert: Box<Certificate> },
    Agent(Box<AgentIdentity>),
    Locked { path: PathBuf, cert: Option<Box<Certificate>> },
}

/// What became of logging in so far.
struct Attempt<'a> {
    handle: &'a mut Handle<HostCheck>,
    config: &'a HostConfig,
    ring: &'a KeyRing,
    words: &'a Words,
    agent: Option<Agent>,
    deadline: Instant,
    limit: Duration,
    /// Keys offered, keys that could not be used, for the message.
    tried: Vec<String>,
    unusable: Vec<String>,
    hint: Option<String>,
    rsa: Option<Option<HashAlg>>,
}

/// Logs in. `limit` is that of the whole attempt, for messages; `deadline` does not count the time a user takes to type a passphrase.
pub(crate) async fn log_in(
    handle: &mut Handle<HostCheck>,
    config: &HostConfig,
    ring: &KeyRing,
    words: &Words,
    deadline: Instant,
    limit: Duration,
) -> Result<(), LaunchFault> {
    let (agent, unusable) = match Agent::connect(&config.agent, deadline).await {
        Ok(agent) => (agent, Vec::new()),
        Err(why) => (None, vec![why]),
    };
    let (tried, hint, rsa) = (Vec::new(), None, None);
    let mut attempt =
        Attempt { handle, config, ring, words, agent, deadline, limit, tried, unusable, hint, rsa };
    let candidates = attempt.candidates().await;
    for candidate in candidates {
        match attempt.offer(candidate).await? {
            Answer::In => return Ok(()),
            Answer::Next => {}
            Answer::Stop(why) => return Err(attempt.fault(&why)),
        }
    }
    Err(attempt.fault(""))
}

enum Answer {
    In,
    Next,
    Stop(String),
}

impl Attempt<'_> {
    async fn candidates(&mut self) -> Vec<Candidate> {
        let config = self.config;
        let explicit = !config.identities.is_empty();
        let paths = if explicit { config.identities.clone() } else { self.ring.default_files() };
        let held = match self.agent.as_mut() {
            Some(agent) => agent.identities(self.deadline).await.unwrap_or_else(|why| {
                self.unusable.push(why);
                Vec::new()
            }),
            None => Vec::new(),
        };
        let (mut first, mut last) = (Vec::new(), Vec::new());
        let mut used: Vec<PublicKey> = Vec::new();
        for path in &paths {
            let identity = self.ring.load(path);
            if matches!(identity.loaded, Loaded::Missing) && !explicit {
                continue;
            }
            if identity.private_public().is_some_and(|key| used.contains(&key)) {
                continue;
            }
            self.add_file(path, &identity, &held, &mut used, &mut first, &mut last);
        }
        let others: Vec<Candidate> = if config.identities_only {
            Vec::new()
        } else {
            let unused =
                held.iter().filter(|h| !used.iter().any(|u| u.key_data() == h.public_key().key_data()));
            unused.take(MAX_AGENT_KEYS).map(|h| Candidate::Agent(Box::new(h.clone()))).collect()
        };
        // Keys that were asked for, then the agent's; default files come after those of the agent.
        let mut all = Vec::new();
        if explicit {
            all.extend(first);
            all.extend(others);
        } else {
            all.extend(others);
            all.extend(first);
        }
        all.extend(last);
        all
    }

    fn add_file(
        &mut self,
        path: &Path,
        identity: &Identity,
        held: &[AgentIdentity],
        used: &mut Vec<PublicKey>,
        first: &mut Vec<Candidate>,
        last: &mut Vec<Candidate>,
    ) {
        let public = identity.public.clone();
        let certs = self.ring.certificates(path, &self.config.certificates, public.as_ref());
        if let Loaded::Plain(key) = &identity.loaded {
            used.push(key.public_key().clone());
            for cert in certs {
                first.push(Candidate::FileCert {
                    path: path.to_owned(),
                    key: key.clone(),
                    cert: Box::new(cert),
                });
            }
            first.push(Candidate::File { path: path.to_owned(), key: key.clone() });
            return;
        }
        let in_agent = public.filter(|p| held.iter().any(|h| h.public_key().key_data() == p.key_data()));
        if let Some(key) = in_agent {
            for certificate in certs {
                let comment = path.display().to_string();
                first.push(Candidate::Agent(Box::new(AgentIdentity::Certificate { certificate, comment })));
            }
            let same = held.iter().filter(|h| h.public_key().key_data() == key.key_data());
            first.extend(same.map(|h| Candidate::Agent(Box::new(h.clone()))));
            used.push(key);
            return;
        }
        match &identity.loaded {
            Loaded::Encrypted if self.config.batch => {
                self.unusable.push(format!("{} needs a passphrase and BatchMode is set", path.display()));
            }
            Loaded::Encrypted => {
                let cert = certs.into_iter().next().map(Box::new);
                last.push(Candidate::Locked { path: path.to_owned(), cert });
            }
            Loaded::Missing => self.unusable.push(format!("{} does not exist", path.display())),
            Loaded::Bad(why) => self.unusable.push(format!("{}: {why}", path.display())),
            Loaded::Plain(_) => {}
        }
    }

    async fn offer(&mut self, candidate: Candidate) -> Result<Answer, LaunchFault> {
        let user = self.config.user.clone();
        let result = match candidate {
            Candidate::File { path, key } => {
                self.tried.push(format!("{} from {}", describe(key.public_key()), path.display()));
                let hash = self.hash_for(key.public_key()).await?;
                let key = PrivateKeyWithHashAlg::new(key, hash);
                within(self.deadline, self.handle.authenticate_publickey(user, key)).await.map(text_error)
            }
            Candidate::FileCert { path, key, cert } => {
                self.tried.push(format!("certificate {:?} for {}", cert.key_id(), path.display()));
                let call = self.handle.authenticate_openssh_cert(user, key, *cert);
                within(self.deadline, call).await.map(text_error)
            }
            Candidate::Agent(identity) => {
                let public = identity.public_key().into_owned();
                let what = if matches!(*identity, AgentIdentity::Certificate { .. }) {
                    "certificate of "
                } else {
                    ""
                };
                self.tried.push(format!(
                    "{what}{} from the agent ({})",
                    describe(&public),
                    identity.comment()
                ));
                let hash = self.hash_for(&public).await?;
                let Some(agent) = self.agent.as_mut() else { return Ok(Answer::Next) };
                let call = agent.authenticate(self.handle, user, *identity, hash);
                match within(self.deadline, call).await {
                    // An agent that declines to sign is no reason not to try the next key.
                    Some(Err(why)) if !self.handle.is_closed() => {
                        self.unusable.push(why);
                        return Ok(Answer::Next);
                    }
                    other => other,
                }
            }
            Candidate::Locked { path, cert } => {
                let asked = Instant::now();
                let unlocked = self.ring.unlock(&path).await;
                self.deadline += asked.elapsed();
                let key = match unlocked {
                    Ok(key) => key,
                    Err(why) => {
                        self.unusable.push(format!("{} {why}", path.display()));
                        self.hint.get_or_insert(format!("give it to an agent: ssh-add {}", path.display()));
                        return Ok(Answer::Next);
                    }
                };
                if let Some(cert) = cert {
                    let candidate = Candidate::FileCert { path: path.to_owned(), key: key.clone(), cert };
                    match Box::pin(self.offer(candidate)).await? {
                        Answer::Next => {}
                        other => return Ok(other),
                    }
                }
                return Box::pin(self.offer(Candidate::File { path, key })).await;
            }
        };
        self.judge(result)
    }

    fn judge(&self, result: Option<Result<AuthResult, String>>) -> Result<Answer, LaunchFault> {
        match result {
            None => Err(LaunchFault::passing(
                Stage::Auth,
                format!("not logged in within {} s", self.limit.as_secs_f32()),
            )),
            Some(Ok(AuthResult::Success)) => Ok(Answer::In),
            Some(Ok(AuthResult::Failure { remaining_methods, partial_success })) => {
                if self.handle.is_closed() {
                    return Ok(Answer::Stop("the host closed the connection".into()));
                }
                if partial_success {
                    let more = names(&remaining_methods);
                    return Ok(Answer::Stop(format!(
                        "the key was accepted, but the host wants more: {more}"
                    )));
                }
                if !remaining_methods.contains(&MethodKind::PublicKey) {
                    let methods = names(&remaining_methods);
                    return Ok(Answer::Stop(format!("the host takes no keys, only {methods}")));
                }
                Ok(Answer::Next)
            }
            Some(Err(_)) if self.handle.is_closed() => {
                Ok(Answer::Stop("the host closed the connection".into()))
            }
            Some(Err(why)) => Ok(Answer::Stop(why)),
        }
    }

    /// The signature algorithm for a key: only RSA has a choice, and asking for it costs a round trip.
    async fn hash_for(&mut self, key: &PublicKey) -> Result<Option<HashAlg>, LaunchFault> {
        if !key.algorithm().is_rsa() {
            return Ok(None);
        }
        if let Some(known) = self.rsa {
            return Ok(known);
        }
        let offered = within(self.deadline, self.handle.best_supported_rsa_hash()).await;
        let hash = match offered {
            Some(Ok(Some(hash))) => hash,
            _ => Some(HashAlg::Sha512),
        };
        self.rsa = Some(hash);
        Ok(hash)
    }

    fn fault(&self, why: &str) -> LaunchFault {
        let mut what = match why {
            "" if self.tried.is_empty() => format!("no usable key for user {}", self.config.user),
            "" => format!("no key accepted for user {}", self.config.user),
            why => format!("not let in as user {}: {why}", self.config.user),
        };
        if let Some(reason) = last_words(self.words) {
            what.push_str(&format!(" ({reason})"));
        }
        if !self.tried.is_empty() {
            what.push_str(&format!("; tried publickey: {}", self.tried.join(", ")));
        }
        if !self.unusable.is_empty() {
            what.push_str(&format!("; not usable: {}", self.unusable.join(", ")));
        }
        let fault = LaunchFault::fatal(Stage::Auth, what);
        match &self.hint {
            Some(hint) => fault.hint(hint.clone()),
            None if self.tried.is_empty() => {
                fault.hint("make a key with ssh-keygen, or name one with --ssh-identity-file")
            }
            None => fault.hint("add one of these keys to authorized_keys of that user"),
        }
    }
}

fn names(methods: &MethodSet) -> String {
    let names: Vec<String> = methods.iter().map(String::from).collect();
    if names.is_empty() { "nothing".into() } else { names.join(", ") }
}

fn text_error(result: Result<AuthResult, russh::Error>) -> Result<AuthResult, String> {
    result.map_err(|e| e.to_string().to_lowercase())
}

/// `None` when the deadline passes first.
pub(crate) async fn within<T>(deadline: Instant, future: impl Future<Output = T>) -> Option<T> {
    tokio::time::timeout_at(deadline.into(), future).await.ok()
}
