//! What every handle does around a call: deadline, span, measurement, and words for the error.

use std::{
    future::Future,
    sync::OnceLock,
    time::{Duration, Instant},
};

use kevel_model::{Code, Error, Result};

use crate::trace;

/// Is told of every call through a handle; the daemon makes metrics of it.
pub trait Observer: Send + Sync {
    /// A call of `method` on the service behind `backend` ended after `took`, with the code of its error if it failed.
    fn called(&self, backend: &str, method: &'static str, took: Duration, failure: Option<Code>);
}

static OBSERVER: OnceLock<Box<dyn Observer>> = OnceLock::new();

/// Sets the observer of this process; the first one stays.
pub fn observe(observer: Box<dyn Observer>) {
    let _ = OBSERVER.set(observer);
}

/// Who is behind a handle and how long it may take. Remote backends get a deadline, so that a dead one costs its own
/// callers that much and nobody else anything.
#[derive(Clone, Debug)]
pub struct Target {
    /// What the backend is called in errors and metrics, e.g. `snapshotter overlayfs`.
    pub name: std::sync::Arc<str>,
    /// The longest a call may take; none for backends in this process, whose work can't be abandoned half-way.
    pub deadline: Option<Duration>,
}

impl Target {
    /// A backend in this process.
    pub fn local(name: impl Into<std::sync::Arc<str>>) -> Self {
        Self { name: name.into(), deadline: None }
    }

    /// A backend in another process, with the longest a call to it may take.
    pub fn remote(name: impl Into<std::sync::Arc<str>>, deadline: Duration) -> Self {
        Self { name: name.into(), deadline: Some(deadline) }
    }

    /// Whether the backend is in another process.
    pub fn is_remote(&self) -> bool {
        self.deadline.is_some()
    }

    /// Makes a call.
    pub async fn call<T>(&self, method: &'static str, call: impl Future<Output = Result<T>>) -> Result<T> {
        let started = Instant::now();
        let call = trace::within(format_args!("{} {method}", self.name), call);
        let result = match self.deadline {
            None => call.await,
            Some(deadline) => tokio::time::timeout(deadline, call).await.unwrap_or_else(|_| {
                Err(Error::deadline_exceeded(format!("{} did not answer {method} within {deadline:?}", self.name)))
            }),
        };
        // A backend that is gone says nothing of itself.
        let result = match result {
            Err(error) if self.deadline.is_some() && error.code() == Code::Unavailable => {
                Err(error.context(self.name.to_string()))
            }
            result => result,
        };
        if let Some(observer) = OBSERVER.get() {
            observer.called(&self.name, method, started.elapsed(), result.as_ref().err().map(Error::code));
        }
        result
    }
}

/// Declares a handle: a cheap clone around a shared backend whose methods go through [`Target::call`].
macro_rules! handle {
    ($(#[$doc:meta])* $handle:ident over $backend:ident {
        $($(#[$mdoc:meta])* fn $method:ident($($arg:ident: $type:ty),* $(,)?) -> $out:ty;)*
    }) => {
        $(#[$doc])*
        #[derive(Clone)]
        pub struct $handle { backend: std::sync::Arc<dyn $backend>, target: $crate::call::Target }

        impl $handle {
            /// A handle to a backend.
            pub fn new(target: $crate::call::Target, backend: impl $backend) -> Self {
                Self { backend: std::sync::Arc::new(backend), target }
            }

            /// Who is behind the handle.
            pub fn target(&self) -> &$crate::call::Target {
                &self.target
            }

            $($(#[$mdoc])* pub async fn $method(&self, $($arg: $type),*) -> kevel_model::Result<$out> {
                self.target.call(stringify!($method), self.backend.$method($($arg),*)).await
            })*
        }

        impl std::fmt::Debug for $handle {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.debug_struct(stringify!($handle)).field("target", &self.target).finish()
            }
        }
    };
}
pub(crate) use handle;
