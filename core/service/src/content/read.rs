//! Content.Read: a blob, or a range of it, in messages of at most 1 MiB.

use futures::{StreamExt as _, stream};
use kevel_client::convert::{content, signed, unsigned};
use kevel_contract::{
    Scope,
    content::{Blob, ContentStore},
};
use kevel_model::{Error, Result};
use kevel_proto::containerd::services::content::v1::{ReadContentRequest, ReadContentResponse};

use crate::call::Items;

/// Bytes in one message.
const CHUNK: u64 = 1 << 20;

/// A size of 0 (or less, as containerd takes it) means up to the end.
pub(super) async fn read(
    store: ContentStore,
    scope: Scope,
    request: ReadContentRequest,
) -> Result<Items<ReadContentResponse>> {
    let digest = content::digest("digest", &request.digest)?;
    let offset = unsigned("offset", request.offset)?;
    let blob = store.open(&scope, &digest).await?;
    let size = blob.size();
    let end = match u64::try_from(request.size) {
        Ok(0) | Err(_) => size,
        Ok(wanted) => offset.saturating_add(wanted),
    };
    if end > size {
        return Err(Error::out_of_range(format!("read past object length {size} bytes")));
    }
    Ok(stream::try_unfold((blob, offset), move |(blob, offset)| next(blob, offset, end)).boxed())
}

type State = (Box<dyn Blob>, u64);

async fn next(blob: Box<dyn Blob>, offset: u64, end: u64) -> Result<Option<(ReadContentResponse, State)>> {
    let length = usize::try_from(end.saturating_sub(offset).min(CHUNK)).unwrap_or(usize::MAX);
    if length == 0 {
        return Ok(None);
    }
    let data = blob.read_at(offset, length).await?;
    if data.is_empty() {
        return Err(Error::data_loss(format!("blob ends at {offset} bytes, before its size of {}", blob.size())));
    }
    let next = offset + data.len() as u64;
    Ok(Some((ReadContentResponse { offset: signed(offset), data }, (blob, next))))
}
