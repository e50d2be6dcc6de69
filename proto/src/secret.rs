//! `Debug` of messages with credentials: a secret is shown as whether it is there, never as what it is.
//!
//! `Debug` is what request logs print. The generator leaves these messages out; the fields to hide are those that the
//! CRI marks with `debug_redact`, and the secret of a transfer's auth stream.

use std::fmt;

use crate::containerd::types::transfer::AuthResponse;
use crate::runtime::v1::AuthConfig;

/// Stands for a secret.
struct Hidden<'a>(&'a str);

impl fmt::Debug for Hidden<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(if self.0.is_empty() { "\"\"" } else { "[hidden]" })
    }
}

impl fmt::Debug for AuthConfig {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        // All fields by name, so that a new one does not go unnoticed.
        let Self { username, password, auth, server_address, identity_token, registry_token } = self;
        formatter
            .debug_struct("AuthConfig")
            .field("username", username)
            .field("password", &Hidden(password))
            .field("auth", &Hidden(auth))
            .field("server_address", server_address)
            .field("identity_token", &Hidden(identity_token))
            .field("registry_token", &Hidden(registry_token))
            .finish()
    }
}

impl fmt::Debug for AuthResponse {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { auth_type, secret, username, expire_at } = self;
        formatter
            .debug_struct("AuthResponse")
            .field("auth_type", auth_type)
            .field("secret", &Hidden(secret))
            .field("username", username)
            .field("expire_at", expire_at)
            .finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::v1::PullImageRequest;

    #[test]
    fn no_credential_is_printed() {
        let secret = || "hunter2".to_owned();
        let auth = AuthConfig {
            username: "someone".to_owned(),
            password: secret(),
            auth: secret(),
            server_address: String::new(),
            identity_token: secret(),
            registry_token: String::new(),
        };
        let request = format!("{:?}", PullImageRequest { auth: Some(auth), ..PullImageRequest::default() });
        assert!(!request.contains("hunter2"), "{request}");
        assert!(request.contains("someone") && request.contains("password: [hidden]"), "{request}");
        assert!(request.contains("registry_token: \"\""), "{request}");

        let response = format!("{:?}", AuthResponse { secret: secret(), ..AuthResponse::default() });
        assert!(!response.contains("hunter2"), "{response}");
    }
}
