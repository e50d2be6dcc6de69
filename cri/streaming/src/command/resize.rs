//! Sizes of the client's terminal: JSON documents one after the other, cut anywhere.

use tokio::sync::watch;

use crate::session::{Input, Size};

/// The longest document; a size takes some thirty bytes.
const LONGEST: usize = 1024;

/// Follows the sizes until the client sends no more, or something that is none.
pub(super) fn follow(mut input: Input) -> watch::Receiver<Option<Size>> {
    let (sender, receiver) = watch::channel(None);
    tokio::spawn(async move {
        let mut unread = Vec::new();
        while let Some(piece) = tokio::select! {
            piece = input.next() => piece,
            () = sender.closed() => None,
        } {
            unread.extend_from_slice(&piece);
            let Some(latest) = take(&mut unread) else { break };
            if latest.is_some() {
                sender.send_replace(latest);
            }
        }
        // The stream stays open, so that a client that goes on sending is not held up.
        while !sender.is_closed() && input.next().await.is_some() {}
    });
    receiver
}

/// Takes every complete document from the front and answers the last one's size; none when it is no size.
#[expect(clippy::option_option, reason = "no size yet is no error")]
fn take(unread: &mut Vec<u8>) -> Option<Option<Size>> {
    let mut documents = serde_json::Deserializer::from_slice(unread).into_iter::<Size>();
    let (mut latest, mut read) = (None, 0);
    loop {
        match documents.next() {
            Some(Ok(size)) => (latest, read) = (Some(size), documents.byte_offset()),
            Some(Err(error)) if !error.is_eof() => return None,
            _ => break,
        }
    }
    unread.drain(..read);
    (unread.len() <= LONGEST).then_some(latest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_complete_size_counts() {
        let check = |text: &str, want: Option<Option<(u16, u16)>>, left: &str| {
            let mut unread = text.as_bytes().to_vec();
            let size = |(width, height)| Size { width, height };
            assert_eq!(take(&mut unread), want.map(|want| want.map(size)), "{text}");
            if want.is_some() {
                assert_eq!(String::from_utf8(unread).unwrap(), left);
            }
        };
        check("", Some(None), "");
        check(r#"{"Width":80,"He"#, Some(None), r#"{"Width":80,"He"#);
        check(r#"{"Width":80,"Height":24}"#, Some(Some((80, 24))), "");
        check("{\"Width\":1,\"Height\":2}\n{\"Width\":3,\"Height\":4}\n{", Some(Some((3, 4))), "\n{");
        check(r#"{"Width":-1,"Height":24}"#, None, "");
        check("x", None, "");
        check(&format!("{{\"x\":\"{}", "y".repeat(LONGEST)), None, "");
    }
}
