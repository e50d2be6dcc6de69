//! Payloads as peers write them: `Any` in both its kinds, values that are not text, and names on a ttrpc connection.

use kevel_proto::any::{self, AnyError};
use kevel_proto::containerd::runc::v1::Options;
use kevel_proto::containerd::types::transfer::Data;
use kevel_proto::{runtime::v1 as cri, shim};
use proptest::prelude::*;
use prost::{Message as _, Name as _};
use prost_types::Any;

fn options() -> Options {
    Options { binary_name: "crun".to_owned(), systemd_cgroup: true, ..Options::default() }
}

#[test]
fn messages_are_packed_under_their_bare_name() {
    let any = any::pack(&options());
    assert_eq!(any.type_url, "containerd.runc.v1.Options");
    assert_eq!(Options::type_url(), "containerd.runc.v1.Options");
    assert_eq!(any::unpack::<Options>(&any).unwrap(), options());
}

#[test]
fn messages_are_found_by_what_follows_the_last_slash() {
    let value = options().encode_to_vec();
    let check = |type_url: &str, accepted: bool| {
        let any = Any { type_url: type_url.to_owned(), value: value.clone() };
        assert_eq!(any::is::<Options>(&any), accepted, "{type_url}");
        match any::unpack::<Options>(&any) {
            Ok(message) => assert!(accepted && message == options(), "{type_url}"),
            Err(AnyError::Type { found, .. }) => assert!(!accepted && found == type_url, "{type_url}"),
            Err(error) => panic!("{type_url}: {error}"),
        }
    };
    check("containerd.runc.v1.Options", true);
    check("/containerd.runc.v1.Options", true);
    check("type.googleapis.com/containerd.runc.v1.Options", true);
    check("example.org/a/b/containerd.runc.v1.Options", true);
    check("containerd.runc.v1.Options/", false);
    check("xcontainerd.runc.v1.Options", false);
    check("runtimeoptions.v1.Options", false);
    check("Options", false);
    check("", false);
}

#[test]
fn bytes_that_are_no_message_are_an_error() {
    let any = Any { type_url: Options::full_name(), value: vec![0xff; 3] };
    let error = any::unpack::<Options>(&any).unwrap_err();
    assert!(matches!(&error, AnyError::Decode { .. }), "{error:?}");
    assert_eq!(error.to_string(), "decoding containerd.runc.v1.Options from an any");
}

#[test]
fn an_owned_payload_is_not_copied() {
    let data = Data { data: vec![7; 4096].into() };
    let any = any::pack(&data);
    let payload = any.value.as_ptr_range();
    let unpacked: Data = any::unpack_owned(any).unwrap();
    assert_eq!(unpacked, data);
    assert!(payload.contains(&unpacked.data.as_ptr()), "the chunk is a part of the payload");
}

#[test]
fn json_is_packed_and_found_under_its_whole_name() {
    let spec = serde_json::json!({"ociVersion": "1.3.0", "x-unknown": [1, 2]});
    let any = any::pack_json(any::SPEC, &spec).unwrap();
    assert_eq!(any.type_url, "types.containerd.io/opencontainers/runtime-spec/1/Spec");
    assert_eq!(any.value, br#"{"ociVersion":"1.3.0","x-unknown":[1,2]}"#);
    assert_eq!(any::unpack_json::<serde_json::Value>(any::SPEC, &any).unwrap(), spec);

    let process = any::unpack_json::<serde_json::Value>(any::PROCESS, &any).unwrap_err();
    assert!(matches!(process, AnyError::Type { .. }), "{process:?}");
    let broken = Any { type_url: any::SPEC.to_owned(), value: b"{".to_vec() };
    let broken = any::unpack_json::<serde_json::Value>(any::SPEC, &broken).unwrap_err();
    assert!(matches!(broken, AnyError::DecodeJson { .. }), "{broken:?}");
}

#[test]
fn environment_values_need_not_be_text() {
    let env = cri::KeyValue { key: "LANG".to_owned(), value: b"\xff\xfe\x00".to_vec() };
    let wire = env.encode_to_vec();
    assert_eq!(wire, b"\x0a\x04LANG\x12\x03\xff\xfe\x00");
    assert_eq!(cri::KeyValue::decode(wire.as_slice()).unwrap(), env);
}

#[test]
fn ttrpc_names_are_those_of_the_services() {
    assert_eq!(shim::task::SERVICE_V2, "containerd.task.v2.Task");
    assert_eq!(shim::task::SERVICE_V3, "containerd.task.v3.Task");
    assert_eq!(shim::sandbox::SERVICE, "containerd.runtime.sandbox.v1.Sandbox");
    assert_eq!(shim::events::SERVICE, "containerd.services.events.ttrpc.v1.Events");
    assert_eq!(shim::streaming::SERVICE, "containerd.services.streaming.v1.Streaming");
    assert_eq!((shim::task::method::CLOSE_IO, shim::task::method::RESIZE_PTY), ("CloseIO", "ResizePty"));
    assert_eq!(shim::task::method::METHODS.len(), 17);
    assert_eq!(shim::sandbox::method::METHODS.len(), 10);
    assert_eq!(shim::events::method::METHODS, ["Forward"]);
}

proptest! {
    #[test]
    fn any_value_of_any_type_survives(type_url in ".*", value: Vec<u8>) {
        let any = Any { type_url: type_url.clone(), value };
        // Never a panic, and a type error exactly when the name is another.
        let refused = matches!(any::unpack::<Options>(&any), Err(AnyError::Type { .. }));
        prop_assert_eq!(refused, !any::is::<Options>(&any));
        prop_assert!(!any::name(&type_url).contains('/'));
    }

    #[test]
    fn environment_round_trips(key in ".*", value: Vec<u8>) {
        let env = cri::KeyValue { key, value };
        prop_assert_eq!(cri::KeyValue::decode(env.encode_to_vec().as_slice()).unwrap(), env);
    }
}
