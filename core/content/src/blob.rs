//! An open blob.

use std::{fs::File, io, os::unix::fs::FileExt as _, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use kevel_contract::content::Blob;
use kevel_model::{Digest, Result};

use crate::{
    error::{self, Error},
    layout::Layout,
    store::blocking,
};

pub(crate) struct OpenBlob {
    file: Arc<File>,
    digest: Digest,
    size: u64,
}

impl OpenBlob {
    pub(crate) fn open(layout: &Layout, digest: Digest) -> error::Result<Self> {
        let path = layout.blob(&digest);
        let opened = File::open(&path).and_then(|file| Ok((file.metadata()?, file)));
        match opened {
            Ok((metadata, file)) => Ok(Self { file: Arc::new(file), digest, size: metadata.len() }),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Err(Error::NoBlob(digest)),
            Err(error) => Err(Error::io(format!("opening content {digest}"), error)),
        }
    }
}

#[async_trait]
impl Blob for OpenBlob {
    fn size(&self) -> u64 {
        self.size
    }

    async fn read_at(&self, offset: u64, length: usize) -> Result<Bytes> {
        let length = usize::try_from(self.size.saturating_sub(offset)).unwrap_or(usize::MAX).min(length);
        if length == 0 {
            return Ok(Bytes::new());
        }
        let (file, digest) = (Arc::clone(&self.file), self.digest.clone());
        blocking(move || {
            let mut data = vec![0; length];
            file.read_exact_at(&mut data, offset)
                .map_err(|error| Error::io(format!("reading content {digest} at {offset}"), error))?;
            Ok(data.into())
        })
        .await
    }
}
