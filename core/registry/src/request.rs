//! One request to one host: authenticated, redirected, its status checked.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue, Method, Request, Response, StatusCode, Uri, header};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;

use crate::{
    Session, Why,
    auth::form,
    challenge,
    session::Endpoint,
    transport::{self, Body, Unsent},
};

/// How much of a refusal is read for its message.
const MAX_REFUSAL: u64 = 16 << 10;

/// A call of the registry API, without a body.
pub(crate) struct Ask {
    pub(crate) method: Method,
    /// Below the repository: `manifests/latest`.
    pub(crate) path: String,
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// What the puller wants to do: `pull` or `pull,push`.
    pub(crate) actions: &'static str,
}

/// A request as it goes out.
pub(crate) struct Sent {
    method: Method,
    url: Uri,
    /// Headers for whoever answers in the end.
    pub(crate) headers: Vec<(HeaderName, HeaderValue)>,
    /// Headers for this host alone, not for whom it redirects to.
    pub(crate) private: Vec<(HeaderName, HeaderValue)>,
    pub(crate) body: Option<Body>,
}

impl Sent {
    pub(crate) fn new(method: Method, url: Uri) -> Self {
        Self { method, url, headers: Vec::new(), private: Vec::new(), body: None }
    }
}

impl Session {
    /// Asks a host, authenticating when it says so; answers a response of success (2xx).
    pub(crate) async fn ask(&self, endpoint: &Endpoint, ask: &Ask) -> Result<Response<Incoming>, Why> {
        let scope = format!("repository:{}:{}", self.inner().reference.repository(), ask.actions);
        // One for a token that ran out, one for a server that wants another scheme.
        for _ in 0..3 {
            let mut sent = Sent::new(ask.method.clone(), self.url(endpoint, &ask.path)?);
            sent.headers.clone_from(&ask.headers);
            let authorization = endpoint.tokens.get(&scope);
            self.add_private(endpoint, &mut sent, authorization.clone());
            let response = self.send(endpoint, sent).await?;
            if response.status() != StatusCode::UNAUTHORIZED {
                return self.successful(response).await;
            }
            let challenges: Vec<_> = response
                .headers()
                .get_all(header::WWW_AUTHENTICATE)
                .iter()
                .filter_map(|value| value.to_str().ok())
                .flat_map(challenge::parse)
                .collect();
            self.authorize(endpoint, &scope, &challenges, authorization.as_ref()).await?;
        }
        Err(Why::Authentication("the registry takes none of the tokens that its token server gives".to_owned()))
    }

    /// Adds what only this host may see.
    pub(crate) fn add_private(&self, endpoint: &Endpoint, sent: &mut Sent, authorization: Option<HeaderValue>) {
        sent.private.extend(endpoint.host.headers.iter().cloned());
        if !endpoint.host.mirror {
            sent.private.extend(self.inner().headers.iter().cloned());
        }
        sent.private.extend(authorization.map(|value| (header::AUTHORIZATION, value)));
    }

    /// The address of something below the repository.
    pub(crate) fn url(&self, endpoint: &Endpoint, path: &str) -> Result<Uri, Why> {
        let reference = &self.inner().reference;
        let mut url = format!("{}{}/{}/{path}", endpoint.url(), endpoint.host.path, reference.repository());
        if endpoint.host.needs_namespace(reference.registry()) {
            url.push_str(if url.contains('?') { "&" } else { "?" });
            url.push_str(&form(&[("ns", reference.registry())]));
        }
        url.parse().map_err(|_| Why::Settings(format!("{url:?} is not a URL")))
    }

    /// Sends a request and follows redirects. A redirect to another authority takes along no private header.
    pub(crate) async fn send(&self, endpoint: &Endpoint, mut sent: Sent) -> Result<Response<Incoming>, Why> {
        let settings = self.settings();
        let limit = settings.header_timeout + endpoint.host.dial_timeout.unwrap_or(settings.connect_timeout);
        let mut redirects = 0;
        loop {
            let body = sent.body.take();
            let repeatable = body.is_none();
            let request = build(&sent, body, &settings.user_agent)?;
            let response = match transport::send(&endpoint.http, request, limit).await {
                Ok(response) => response,
                Err(Unsent::NotTls(_)) if repeatable && sent.is_tls_of(endpoint) && endpoint.fall_back() => {
                    tracing::debug!(host = %endpoint.host.authority, "host does not speak TLS, going on without");
                    sent.url = with_scheme(&sent.url, "http")?;
                    continue;
                }
                Err(Unsent::NotTls(why) | Unsent::Other(why)) => return Err(why),
            };
            if !is_redirect(response.status()) || !matches!(sent.method, Method::GET | Method::HEAD) {
                return Ok(response);
            }
            redirects += 1;
            if redirects > settings.max_redirects {
                return Err(Why::Protocol(format!("more than {} redirects", settings.max_redirects)));
            }
            sent.redirect(response.headers())?;
        }
    }

    /// The response if it is a success, else what the registry said.
    pub(crate) async fn successful(&self, response: Response<Incoming>) -> Result<Response<Incoming>, Why> {
        if response.status().is_success() {
            return Ok(response);
        }
        let status = response.status().as_u16();
        let retry_after = retry_after(response.headers());
        let body = read_limited(response.into_body(), "the refusal", MAX_REFUSAL, self.settings().stall_timeout).await;
        Err(Why::Status { status, message: body.map(|body| refusal(&body)).unwrap_or_default(), retry_after })
    }
}

impl Sent {
    fn is_tls_of(&self, endpoint: &Endpoint) -> bool {
        self.url.scheme_str() == Some("https")
            && self.url.authority().is_some_and(|authority| authority.as_str() == endpoint.host.authority)
    }

    fn redirect(&mut self, headers: &HeaderMap) -> Result<(), Why> {
        let bad = || Why::Protocol("redirect to no valid address".to_owned());
        let location = headers.get(header::LOCATION).and_then(|value| value.to_str().ok()).ok_or_else(bad)?;
        let target = join(&self.url, location).ok_or_else(bad)?;
        let (from, to) = (self.url.scheme_str(), target.scheme_str());
        if !matches!(to, Some("http" | "https")) {
            return Err(bad());
        }
        if from == Some("https") && to == Some("http") {
            return Err(Why::Protocol("redirect from TLS to plain HTTP".to_owned()));
        }
        if from != to || self.url.authority() != target.authority() {
            self.private.clear();
        }
        self.url = target;
        Ok(())
    }
}

fn build(sent: &Sent, body: Option<Body>, user_agent: &str) -> Result<Request<Body>, Why> {
    let mut builder = Request::builder().method(&sent.method).uri(&sent.url).header(header::USER_AGENT, user_agent);
    for (name, value) in sent.headers.iter().chain(&sent.private) {
        builder = builder.header(name, value);
    }
    builder
        .body(body.unwrap_or_else(transport::empty))
        .map_err(|error| Why::Settings(format!("making the request: {error}")))
}

fn with_scheme(url: &Uri, scheme: &str) -> Result<Uri, Why> {
    let mut parts = url.clone().into_parts();
    parts.scheme = scheme.parse().ok();
    Uri::from_parts(parts).map_err(|error| Why::Settings(format!("making the address: {error}")))
}

/// Resolves a location against the address that it came from: absolute, `//authority/path`, `/path`, or relative.
pub(crate) fn join(base: &Uri, location: &str) -> Option<Uri> {
    let location = location.split('#').next().unwrap_or(location);
    let scheme = base.scheme_str()?;
    let authority = base.authority()?;
    if let Some((scheme, _)) = location.split_once("://")
        && scheme.bytes().all(|b| b.is_ascii_alphanumeric())
    {
        let uri: Uri = location.parse().ok()?;
        return uri.authority().filter(|authority| !authority.as_str().contains('@')).is_some().then_some(uri);
    }
    let text = if location.starts_with("//") {
        format!("{scheme}:{location}")
    } else if location.starts_with('/') {
        format!("{scheme}://{authority}{location}")
    } else {
        let directory = base.path().rsplit_once('/').map_or("", |(directory, _)| directory);
        format!("{scheme}://{authority}{directory}/{location}")
    };
    text.parse().ok()
}

fn is_redirect(status: StatusCode) -> bool {
    matches!(status.as_u16(), 301 | 302 | 303 | 307 | 308)
}

/// `Retry-After` in seconds; dates are not worth a parser, the back-off does.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    headers.get(header::RETRY_AFTER)?.to_str().ok()?.trim().parse().ok().map(Duration::from_secs)
}

/// The message of a refusal: the registry's error list if it is one, else its first words. Short and printable.
fn refusal(body: &[u8]) -> String {
    #[derive(serde::Deserialize)]
    struct Refusal {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let text = match serde_json::from_slice::<Refusal>(body) {
        Ok(refusal) => {
            let items = refusal.errors.iter().map(|item| format!("{}: {}", item.code, item.message));
            items.collect::<Vec<_>>().join(", ")
        }
        Err(_) => String::from_utf8_lossy(body).into_owned(),
    };
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(200).collect::<String>().trim().to_owned()
}

/// A whole body of at most `limit` bytes, `stall` the longest pause in it.
pub(crate) async fn read_limited(
    mut body: Incoming,
    what: &'static str,
    limit: u64,
    stall: Duration,
) -> Result<Bytes, Why> {
    let mut data = BytesMut::new();
    while let Some(piece) = next_piece(&mut body, stall).await? {
        if data.len() as u64 + piece.len() as u64 > limit {
            return Err(Why::TooLarge { what, limit });
        }
        data.extend_from_slice(&piece);
    }
    Ok(data.freeze())
}

/// The next piece of a body; `None` at its end.
pub(crate) async fn next_piece(body: &mut Incoming, stall: Duration) -> Result<Option<Bytes>, Why> {
    loop {
        let frame = match tokio::time::timeout(stall, body.frame()).await {
            Err(_) => return Err(Why::Timeout("the next piece of the body", stall)),
            Ok(None) => return Ok(None),
            Ok(Some(Err(error))) => return Err(Why::Connection(transport::chain(&error))),
            Ok(Some(Ok(frame))) => frame,
        };
        if let Ok(data) = frame.into_data()
            && !data.is_empty()
        {
            return Ok(Some(data));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn locations_are_resolved() {
        let base: Uri = "https://h:1/v2/a/blobs/x?ns=y".parse().unwrap();
        let check = |location: &str, want: Option<&str>| {
            assert_eq!(join(&base, location).map(|uri| uri.to_string()).as_deref(), want, "{location}");
        };
        check("http://o/p?q=r#f", Some("http://o/p?q=r"));
        check("//o/p", Some("https://o/p"));
        check("/p?q=a://b", Some("https://h:1/p?q=a://b"));
        check("p", Some("https://h:1/v2/a/blobs/p"));
        check("http://u:p@o/", None);
        check("http://", None);
    }

    #[test]
    fn refusals_are_short_and_printable() {
        assert_eq!(refusal(br#"{"errors":[{"code":"DENIED","message":"no\u001b[1m"}]}"#), "DENIED: no [1m");
        assert_eq!(refusal(b"<html>\n"), "<html>");
        assert_eq!(refusal(&[b'x'; 999]).len(), 200);
    }
}
