//! What a client's HTTP request asks for: which transport, which protocol, and the answer that agrees.

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use http_body_util::Full;

use crate::{command::Version, forward, websocket, websocket::Codec};

/// The header in which SPDY clients offer protocols and the server answers one.
const OFFERED: &str = "x-stream-protocol-version";
/// The header in which the server says what it would have taken.
const ACCEPTED: &str = "x-accepted-stream-protocol-versions";
const SPDY: &str = "SPDY/3.1";

/// An answer without a body worth streaming.
pub(crate) type Answer = Response<Full<Bytes>>;

/// Why a request is refused.
#[derive(Debug)]
pub(crate) struct Refusal {
    status: StatusCode,
    why: &'static str,
    /// Protocols that would have been taken.
    accepted: &'static [&'static str],
}

/// What was agreed on for a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Spdy(Version),
    WebSocket(Version, Codec),
}

/// What was agreed on for ports.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Forward {
    Spdy,
    Tunnelled,
    Channels(Codec),
}

/// Agrees on a protocol for a command.
pub(crate) fn command(headers: &HeaderMap) -> Result<(Command, Answer), Refusal> {
    if websocket::is_wanted(headers) {
        let ((version, codec), answer) = agree(headers, command_channels)?;
        return Ok((Command::WebSocket(version, codec), answer));
    }
    let (name, answer) = spdy(headers, &Version::SPDY)?;
    // Every name of the list is a version's.
    Ok((Command::Spdy(Version::named(name).unwrap_or(Version::V1)), answer))
}

/// Agrees on a protocol for ports.
pub(crate) fn forward(headers: &HeaderMap) -> Result<(Forward, Answer), Refusal> {
    if websocket::is_wanted(headers) {
        return agree(headers, forward_channels);
    }
    spdy(headers, &[forward::PROTOCOL]).map(|(_, answer)| (Forward::Spdy, answer))
}

fn command_channels(name: &str) -> Option<(Version, Codec)> {
    Some(match name {
        "" | "channel.k8s.io" => (Version::V1, Codec::Binary),
        "base64.channel.k8s.io" => (Version::V1, Codec::Base64),
        "v4.channel.k8s.io" => (Version::V4, Codec::Binary),
        "v4.base64.channel.k8s.io" => (Version::V4, Codec::Base64),
        "v5.channel.k8s.io" => (Version::V5, Codec::Binary),
        _ => return None,
    })
}

fn forward_channels(name: &str) -> Option<Forward> {
    Some(match name {
        forward::TUNNELLED => Forward::Tunnelled,
        "" | "v4.channel.k8s.io" => Forward::Channels(Codec::Binary),
        "v4.base64.channel.k8s.io" => Forward::Channels(Codec::Base64),
        _ => return None,
    })
}

/// Takes the first protocol that the client offers and `known` knows; one that offers none gets the one without a name.
fn agree<T>(headers: &HeaderMap, known: impl Fn(&str) -> Option<T>) -> Result<(T, Answer), Refusal> {
    let Some(key) = websocket::accept_key(headers) else {
        return Err(refuse(StatusCode::BAD_REQUEST, "the WebSocket handshake is not one of version 13"));
    };
    let offered = websocket::protocols(headers);
    let found = match &offered[..] {
        [] => known("").map(|known| ("", known)),
        names => names.iter().find_map(|name| Some((*name, known(name)?))),
    };
    let Some((name, known)) = found else {
        return Err(refuse(StatusCode::FORBIDDEN, "none of the offered WebSocket protocols is spoken here"));
    };
    let mut answer = switch("websocket");
    let headers = answer.headers_mut();
    if let Ok(key) = HeaderValue::from_str(&key) {
        headers.insert(header::SEC_WEBSOCKET_ACCEPT, key);
    }
    if !name.is_empty()
        && let Ok(name) = HeaderValue::from_str(name)
    {
        headers.insert(header::SEC_WEBSOCKET_PROTOCOL, name);
    }
    Ok((known, answer))
}

fn spdy(headers: &HeaderMap, known: &'static [&'static str]) -> Result<(&'static str, Answer), Refusal> {
    let offered: Vec<&str> = headers
        .get_all(OFFERED)
        .iter()
        .filter_map(|value| value.to_str().ok())
        .flat_map(|value| value.split(','))
        .map(str::trim)
        .filter(|name| !name.is_empty())
        .collect();
    if offered.is_empty() {
        return Err(refuse(StatusCode::BAD_REQUEST, "the header X-Stream-Protocol-Version names no protocol"));
    }
    let Some(name) = offered.iter().find_map(|name| known.iter().find(|known| *known == name)) else {
        let refusal = refuse(StatusCode::FORBIDDEN, "none of the offered protocols is spoken here");
        return Err(Refusal { accepted: known, ..refusal });
    };
    let has = |header, word: &str| {
        let values = headers.get_all(header).iter().filter_map(|value: &HeaderValue| value.to_str().ok());
        values.map(str::to_ascii_lowercase).any(|value| value.contains(word))
    };
    if !has(header::CONNECTION, "upgrade") || !has(header::UPGRADE, "spdy/3.1") {
        return Err(refuse(StatusCode::BAD_REQUEST, "the request asks for no upgrade to SPDY/3.1"));
    }
    let mut answer = switch(SPDY);
    if let Ok(name) = HeaderValue::from_str(name) {
        answer.headers_mut().insert(OFFERED, name);
    }
    Ok((name, answer))
}

fn switch(protocol: &'static str) -> Answer {
    let mut answer = Response::new(Full::default());
    *answer.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    answer.headers_mut().insert(header::CONNECTION, HeaderValue::from_static("Upgrade"));
    answer.headers_mut().insert(header::UPGRADE, HeaderValue::from_static(protocol));
    answer
}

/// Says no, and why. Clients try to read the text as a document: with `: ` in it they take it for an empty one.
pub(crate) fn refuse(status: StatusCode, why: &'static str) -> Refusal {
    Refusal { status, why, accepted: &[] }
}

impl From<Refusal> for Answer {
    fn from(refusal: Refusal) -> Self {
        let mut answer = Self::new(Full::new(Bytes::from_static(refusal.why.as_bytes())));
        *answer.status_mut() = refusal.status;
        let headers = answer.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
        for name in refusal.accepted {
            headers.append(ACCEPTED, HeaderValue::from_static(name));
        }
        answer
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn headers(pairs: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in pairs {
            let name: http::HeaderName = name.parse().unwrap();
            headers.append(name, value.parse().unwrap());
        }
        headers
    }

    #[test]
    fn spdy_clients_get_the_first_protocol_that_both_know() {
        let check = |pairs: &[(&str, &str)], want: Result<(Command, &str), u16>| {
            let got = command(&headers(pairs));
            let got = match &got {
                Ok((command, answer)) => Ok((*command, answer.headers()[OFFERED].to_str().unwrap())),
                Err(refusal) => Err(refusal.status.as_u16()),
            };
            assert_eq!(got, want, "{pairs:?}");
        };
        let upgrade = [("connection", "Upgrade"), ("upgrade", "SPDY/3.1")];
        let with = |offers: &[&'static str]| {
            let offers = offers.iter().map(|offer| ("x-stream-protocol-version", *offer));
            upgrade.into_iter().chain(offers).collect::<Vec<_>>()
        };
        let v = |version, name| Ok((Command::Spdy(version), name));
        check(&with(&["v4.channel.k8s.io", "channel.k8s.io"]), v(Version::V4, "v4.channel.k8s.io"));
        check(&with(&["v9.channel.k8s.io, v3.channel.k8s.io"]), v(Version::V3, "v3.channel.k8s.io"));
        check(&with(&["v2.channel.k8s.io", "v4.channel.k8s.io"]), v(Version::V2, "v2.channel.k8s.io"));
        check(&with(&["channel.k8s.io"]), v(Version::V1, "channel.k8s.io"));
        check(&with(&["v5.channel.k8s.io"]), Err(403));
        check(&with(&[]), Err(400));
        check(&with(&[" , "]), Err(400));
        check(&[("x-stream-protocol-version", "v4.channel.k8s.io")], Err(400));
        let refused = Answer::from(command(&headers(&with(&["other"]))).unwrap_err());
        assert_eq!(refused.headers().get_all(ACCEPTED).iter().count(), 4);
        let ports = forward(&headers(&with(&["portforward.k8s.io"]))).unwrap();
        assert_eq!((ports.0, ports.1.status()), (Forward::Spdy, StatusCode::SWITCHING_PROTOCOLS));
        assert_eq!(forward(&headers(&with(&["v4.channel.k8s.io"]))).unwrap_err().status, 403);
    }

    #[test]
    fn websocket_clients_get_the_first_protocol_that_both_know() {
        // The key and its answer are the example of RFC 6455.
        let upgrade = [
            ("connection", "keep-alive, Upgrade"),
            ("upgrade", "WebSocket"),
            ("sec-websocket-version", "13"),
            ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ];
        let with = |offers: &'static str| {
            let offers = (!offers.is_empty()).then_some(("sec-websocket-protocol", offers));
            headers(&upgrade.into_iter().chain(offers).collect::<Vec<_>>())
        };
        let check = |offers: &'static str, want: Option<Command>| {
            let got = command(&with(offers));
            assert_eq!(got.as_ref().ok().map(|(command, _)| *command), want, "{offers}");
        };
        check("v5.channel.k8s.io", Some(Command::WebSocket(Version::V5, Codec::Binary)));
        check("x, v4.channel.k8s.io", Some(Command::WebSocket(Version::V4, Codec::Binary)));
        check("v4.base64.channel.k8s.io", Some(Command::WebSocket(Version::V4, Codec::Base64)));
        check("base64.channel.k8s.io", Some(Command::WebSocket(Version::V1, Codec::Base64)));
        check("channel.k8s.io", Some(Command::WebSocket(Version::V1, Codec::Binary)));
        check("", Some(Command::WebSocket(Version::V1, Codec::Binary)));
        check("v6.channel.k8s.io", None);
        let (kind, answer) = forward(&with("SPDY/3.1+portforward.k8s.io")).unwrap();
        assert_eq!(kind, Forward::Tunnelled);
        assert_eq!(answer.headers()["sec-websocket-accept"], "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=");
        assert_eq!(answer.headers()["sec-websocket-protocol"], "SPDY/3.1+portforward.k8s.io");
        assert_eq!(forward(&with("v4.channel.k8s.io")).unwrap().0, Forward::Channels(Codec::Binary));
        assert!(forward(&with("v5.channel.k8s.io")).is_err());
        let mut old = with("");
        old.insert("sec-websocket-version", "8".parse().unwrap());
        assert_eq!(command(&old).unwrap_err().status, 400);
    }
}
