//! Transfer.Transfer

use kevel_client::convert::{need, types};
use kevel_contract::{
    Scope,
    transfer::{Export, Import, Pull, Push},
};
use kevel_model::{Error, Result};
use kevel_proto::{
    any::{self, is},
    containerd::{
        services::transfer::v1::TransferRequest,
        types::transfer::{ImageExportStream, ImageImportStream, ImageStore, OciRegistry},
    },
};
use prost::{Message, Name};
use prost_types::Any;

use super::{Transfer, archive, progress::Reporter, registry, store};

pub(super) async fn transfer(service: &Transfer, scope: Scope, request: TransferRequest) -> Result<()> {
    let (source, destination) = (need("source", request.source)?, need("destination", request.destination)?);
    let progress = request.options.unwrap_or_default().progress_stream;
    let reporter = Reporter::open(service, &scope, &progress).await?;
    let done = dispatch(service, &scope, &source, &destination, &reporter).await;
    reporter.finish().await;
    done
}

async fn dispatch(service: &Transfer, scope: &Scope, from: &Any, to: &Any, reporter: &Reporter) -> Result<()> {
    if is::<OciRegistry>(from) && is::<ImageStore>(to) {
        pull(service, scope, read("source", from)?, read("destination", to)?, reporter).await
    } else if is::<ImageStore>(from) && is::<OciRegistry>(to) {
        push(service, scope, read("source", from)?, read("destination", to)?, reporter).await
    } else if is::<ImageImportStream>(from) && is::<ImageStore>(to) {
        import(service, scope, read("source", from)?, read("destination", to)?).await
    } else if is::<ImageStore>(from) && is::<ImageExportStream>(to) {
        export(service, scope, read("source", from)?, read("destination", to)?).await
    } else if is::<ImageStore>(from) && is::<ImageStore>(to) {
        let (from, to): (ImageStore, ImageStore) = (read("source", from)?, read("destination", to)?);
        service.service.tag(scope, &from.name, &to.name).await.map(|_| ())
    } else {
        Err(Error::unimplemented(format!("transfer from {:?} to {:?}", from.type_url, to.type_url)))
    }
}

fn read<M: Message + Name + Default>(field: &str, value: &Any) -> Result<M> {
    any::unpack(value).map_err(|cause| Error::invalid_argument(field).with_source(cause))
}

async fn pull(service: &Transfer, scope: &Scope, from: OciRegistry, to: ImageStore, reporter: &Reporter) -> Result<()> {
    let registry = registry::read(service, scope, &from).await?;
    let pull = Pull {
        reference: from.reference,
        unpack: store::unpacks(to.unpacks),
        platforms: to.platforms.into_iter().map(types::platform_read).collect(),
        name: to.name,
        registry,
        all_metadata: to.all_metadata,
        labels: to.labels,
        progress: reporter.sender(),
        ..Pull::default()
    };
    service.service.pull(scope, pull).await.map(|_| ())
}

async fn push(service: &Transfer, scope: &Scope, from: ImageStore, to: OciRegistry, reporter: &Reporter) -> Result<()> {
    let registry = registry::read(service, scope, &to).await?;
    let push = Push {
        name: from.name,
        reference: to.reference,
        registry,
        platforms: from.platforms.into_iter().map(types::platform_read).collect(),
        progress: reporter.sender(),
    };
    service.service.push(scope, push).await
}

async fn import(service: &Transfer, scope: &Scope, from: ImageImportStream, to: ImageStore) -> Result<()> {
    let names = store::names(&to);
    let import = Import {
        name: names.prefix,
        extra_names: names.exact,
        digest_prefix: names.digest_prefix,
        platforms: to.platforms.into_iter().map(types::platform_read).collect(),
        unpack: store::unpacks(to.unpacks),
        labels: to.labels,
    };
    let stream = service.streams.take(scope, &from.stream).await?;
    service.service.import(scope, archive::source(stream), import).await.map(|_| ())
}

async fn export(service: &Transfer, scope: &Scope, from: ImageStore, to: ImageExportStream) -> Result<()> {
    let mut names: Vec<_> = Some(from.name).filter(|name| !name.is_empty()).into_iter().collect();
    names.extend(from.extra_references.into_iter().map(|reference| reference.name));
    let export = Export {
        names,
        platforms: to.platforms.into_iter().map(types::platform_read).collect(),
        all_platforms: to.all_platforms,
        skip_docker_manifest: to.skip_compatibility_manifest,
    };
    let stream = service.streams.take(scope, &to.stream).await?;
    let (sink, sent) = archive::sink(stream);
    service.service.export(scope, sink, export).await?;
    sent.await.unwrap_or_else(|_| Err(Error::internal("sending the archive: its task died")))
}
