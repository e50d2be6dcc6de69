//! Who the puller is: basic authentication, and bearer tokens from a token server, kept per host and scope.
//!
//! Credentials go to the registry's own hosts and the token server that these name, never to mirrors; they are in no
//! error and no log.

use std::{
    collections::HashMap,
    fmt,
    sync::{Mutex, PoisonError},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::{HeaderValue, Method, StatusCode, Uri, header};
use serde::Deserialize;

use crate::{
    Challenge, Session, Why,
    request::{Sent, read_limited},
    session::Endpoint,
    transport,
};

/// Who the puller is. `Debug` shows no secret.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Credentials {
    /// User name; empty when `secret` is a token.
    pub username: String,
    /// Password, or an identity (refresh) token when there is no user name.
    pub secret: String,
    /// A bearer token that the registry takes as it is.
    pub registry_token: String,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").field("username", &self.username).finish_non_exhaustive()
    }
}

/// Authorization that worked, by scope. One at a time asks for a new one, the others wait and share it.
#[derive(Default)]
pub(crate) struct Tokens {
    known: Mutex<HashMap<String, HeaderValue>>,
    gate: tokio::sync::Mutex<()>,
}

/// A token server's answer; two generations of the protocol name the token differently.
#[derive(Deserialize)]
struct TokenAnswer {
    #[serde(default)]
    token: String,
    #[serde(default)]
    access_token: String,
}

const MAX_TOKEN_ANSWER: u64 = 1 << 20;

impl Tokens {
    /// The authorization for a scope, if one is known.
    pub(crate) fn get(&self, scope: &str) -> Option<HeaderValue> {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).get(scope).cloned()
    }

    fn put(&self, scope: &str, value: HeaderValue) {
        self.known.lock().unwrap_or_else(PoisonError::into_inner).insert(scope.to_owned(), value);
    }
}

impl Session {
    /// Answers the challenges of a host; `refused` is the authorization that it did not take.
    pub(crate) async fn authorize(
        &self,
        endpoint: &Endpoint,
        scope: &str,
        challenges: &[Challenge],
        refused: Option<&HeaderValue>,
    ) -> Result<(), Why> {
        let _turn = endpoint.tokens.gate.lock().await;
        if endpoint.tokens.get(scope).as_ref() != refused {
            return Ok(()); // somebody else was faster
        }
        let credentials = self.inner().credentials.as_ref().filter(|_| !endpoint.host.mirror);
        let offered = |scheme: &str| challenges.iter().find(|challenge| challenge.scheme == scheme);
        let value = if let Some(bearer) = offered("bearer") {
            match credentials.filter(|credentials| !credentials.registry_token.is_empty()) {
                Some(credentials) => format!("Bearer {}", credentials.registry_token),
                None => format!("Bearer {}", self.token(endpoint, scope, bearer, credentials).await?),
            }
        } else if offered("basic").is_some() {
            let credentials = credentials
                .filter(|credentials| !credentials.username.is_empty())
                .ok_or_else(|| Why::Authentication("the registry wants a user name and password".to_owned()))?;
            basic(credentials)
        } else {
            let schemes: Vec<&str> = challenges.iter().map(|challenge| challenge.scheme.as_str()).collect();
            return Err(Why::Authentication(format!("no challenge that is understood, offered were {schemes:?}")));
        };
        let mut value = HeaderValue::from_str(&value)
            .map_err(|_| Why::Authentication("token or password does not fit a header".to_owned()))?;
        value.set_sensitive(true);
        if refused == Some(&value) {
            return Err(Why::Authentication("the registry refuses these credentials".to_owned()));
        }
        endpoint.tokens.put(scope, value);
        Ok(())
    }

    /// A token of the server that `challenge` names.
    async fn token(
        &self,
        endpoint: &Endpoint,
        scope: &str,
        challenge: &Challenge,
        credentials: Option<&Credentials>,
    ) -> Result<String, Why> {
        let realm = realm(endpoint, challenge)?;
        let service = challenge.parameters.get("service").map_or("", String::as_str);
        let mut scopes: Vec<&str> = challenge.parameters.get("scope").map_or("", String::as_str).split(' ').collect();
        scopes.push(scope);
        scopes.retain(|scope| !scope.is_empty());
        scopes.sort_unstable();
        scopes.dedup();
        let refresh =
            credentials.filter(|credentials| credentials.username.is_empty() && !credentials.secret.is_empty());
        let password = credentials.filter(|credentials| !credentials.username.is_empty());
        if let Some(credentials) = refresh {
            let grant = [("grant_type", "refresh_token"), ("refresh_token", &credentials.secret)];
            return self.token_by_post(endpoint, &realm, service, &scopes, &grant).await;
        }
        match (self.token_by_get(endpoint, &realm, service, &scopes, password).await, password) {
            // Token servers of OAuth 2 alone know no GET.
            (Err(Why::Status { status: 404 | 405, .. }), Some(credentials)) => {
                let grant = [
                    ("grant_type", "password"),
                    ("username", credentials.username.as_str()),
                    ("password", credentials.secret.as_str()),
                ];
                self.token_by_post(endpoint, &realm, service, &scopes, &grant).await
            }
            (result, _) => result,
        }
    }

    async fn token_by_get(
        &self,
        endpoint: &Endpoint,
        realm: &Uri,
        service: &str,
        scopes: &[&str],
        credentials: Option<&Credentials>,
    ) -> Result<String, Why> {
        let mut query: Vec<(&str, &str)> = Vec::new();
        if !service.is_empty() {
            query.push(("service", service));
        }
        query.extend(scopes.iter().map(|scope| ("scope", *scope)));
        let separator = if realm.query().is_some() { '&' } else { '?' };
        let url: Uri = format!("{realm}{separator}{}", form(&query))
            .parse()
            .map_err(|_| Why::Protocol("the token server's address is not a URL".to_owned()))?;
        let mut sent = Sent::new(Method::GET, url);
        if let Some(credentials) = credentials {
            sent.private.push((header::AUTHORIZATION, secret(&basic(credentials))?));
        }
        self.token_from(endpoint, sent).await
    }

    async fn token_by_post(
        &self,
        endpoint: &Endpoint,
        realm: &Uri,
        service: &str,
        scopes: &[&str],
        grant: &[(&str, &str)],
    ) -> Result<String, Why> {
        let scope = scopes.join(" ");
        let mut fields = vec![("client_id", "kevel"), ("service", service), ("scope", scope.as_str())];
        fields.extend_from_slice(grant);
        let mut sent = Sent::new(Method::POST, realm.clone());
        let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
        sent.private.push((header::CONTENT_TYPE, form_type));
        sent.body = Some(transport::full(form(&fields)));
        self.token_from(endpoint, sent).await
    }

    async fn token_from(&self, endpoint: &Endpoint, sent: Sent) -> Result<String, Why> {
        let response = self.send(endpoint, sent).await?;
        if response.status() == StatusCode::UNAUTHORIZED {
            return Err(Why::Authentication("the token server refuses these credentials".to_owned()));
        }
        let response = self.successful(response).await?;
        let body =
            read_limited(response.into_body(), "the token", MAX_TOKEN_ANSWER, self.settings().stall_timeout).await?;
        let answer: TokenAnswer = serde_json::from_slice(&body)
            .map_err(|_| Why::Protocol("the token server's answer is not what tokens come in".to_owned()))?;
        let token = if answer.token.is_empty() { answer.access_token } else { answer.token };
        if token.is_empty() {
            return Err(Why::Authentication("the token server gave no token".to_owned()));
        }
        Ok(token)
    }
}

/// Where to get tokens: any host, since registries and token servers differ, but not with less protection than the
/// registry itself.
fn realm(endpoint: &Endpoint, challenge: &Challenge) -> Result<Uri, Why> {
    let text = challenge.parameters.get("realm").map_or("", String::as_str);
    let bad = || Why::Protocol(format!("challenge realm {text:?} is not a URL"));
    let uri: Uri = text.parse().map_err(|_| bad())?;
    match (uri.scheme_str(), endpoint.scheme()) {
        _ if uri.authority().is_none_or(|authority| authority.as_str().contains('@')) => Err(bad()),
        (Some("https"), _) | (Some("http"), "http") => Ok(uri),
        (Some("http"), _) => Err(Why::Authentication(format!("token server {text:?} is not protected by TLS"))),
        _ => Err(bad()),
    }
}

fn basic(credentials: &Credentials) -> String {
    format!("Basic {}", STANDARD.encode(format!("{}:{}", credentials.username, credentials.secret)))
}

fn secret(text: &str) -> Result<HeaderValue, Why> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Why::Authentication("user name or password does not fit a header".to_owned()))?;
    value.set_sensitive(true);
    Ok(value)
}

/// Fields as a form or query carries them.
pub(crate) fn form(fields: &[(&str, &str)]) -> String {
    let pairs: Vec<String> = fields.iter().map(|(name, value)| format!("{}={}", escape(name), escape(value))).collect();
    pairs.join("&")
}

fn escape(text: &str) -> String {
    use fmt::Write as _;
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}"); // writing to a String can't fail
        }
    }
    out
}
