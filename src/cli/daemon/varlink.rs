//! The protocol of the control socket: JSON messages that end with a NUL byte (<https://varlink.org>).
//!
//! Protects: what cannot be meant gets an error, and neither ends the connection nor the daemon; a message that is too long does end
//! the connection. Does not know what the methods do.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

/// The definition of what can be asked for.
pub(in crate::cli) const INTERFACE: &str = include_str!("org.mmpguard.varlink");
/// Its name.
pub(in crate::cli) const INTERFACE_NAME: &str = "org.mmpguard";
/// A message is far shorter.
pub(in crate::cli) const MESSAGE_BYTES: usize = 1 << 18;

/// A method that is called.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::cli) struct Call {
    pub(in crate::cli) method: String,
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub(in crate::cli) parameters: Value,
    /// Several replies are welcome.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::cli) more: bool,
    /// None is.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::cli) oneway: bool,
}

/// What is answered.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(in crate::cli) struct Reply {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(in crate::cli) error: Option<String>,
    #[serde(default)]
    pub(in crate::cli) parameters: Value,
    /// Another one follows.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub(in crate::cli) continues: bool,
}

impl Reply {
    pub(in crate::cli) fn of(parameters: Value) -> Self {
        Reply { error: None, parameters, continues: false }
    }

    pub(in crate::cli) fn error(name: &str, parameters: Value) -> Self {
        let name = if name.contains('.') { name.to_owned() } else { format!("{INTERFACE_NAME}.{name}") };
        Reply { error: Some(name), parameters, continues: false }
    }

    /// A parameter is missing, of the wrong type, or not known.
    pub(in crate::cli) fn bad_parameter(why: &str) -> Self {
        Reply::error("org.varlink.service.InvalidParameter", json!({ "parameter": why }))
    }
}

/// Makes a message of it.
pub(in crate::cli) fn message(content: &impl Serialize) -> Vec<u8> {
    let mut bytes = serde_json::to_vec(content).unwrap_or_default(); // strings, numbers and maps by strings: it cannot fail
    bytes.push(0);
    bytes
}

/// Takes the next whole message out of `buffer`.
pub(in crate::cli) fn next_message(buffer: &mut Vec<u8>) -> Option<Vec<u8>> {
    let end = buffer.iter().position(|&byte| byte == 0)?;
    let rest = buffer.split_off(end + 1);
    let mut message = std::mem::replace(buffer, rest);
    message.pop();
    Some(message)
}

/// Understands a call.
pub(in crate::cli) fn call(message: &[u8]) -> Result<Call, Reply> {
    serde_json::from_slice(message).map_err(|error| Reply::bad_parameter(&format!("not understood: {error}")))
}

/// Its parameters; none at all are as good as empty ones.
pub(in crate::cli) fn parameters<T: serde::de::DeserializeOwned>(call: &Call) -> Result<T, Reply> {
    let given = if call.parameters.is_null() { json!({}) } else { call.parameters.clone() };
    serde_json::from_value(given).map_err(|error| Reply::bad_parameter(&error.to_string()))
}

/// What every Varlink service answers.
pub(in crate::cli) fn service(call: &Call) -> Option<Reply> {
    let name = call.method.strip_prefix("org.varlink.service.")?;
    Some(match name {
        "GetInfo" => Reply::of(json!({
            "vendor": "mmpguard", "product": "mmp", "version": env!("CARGO_PKG_VERSION"),
            "url": "https://varlink.org", "interfaces": ["org.varlink.service", INTERFACE_NAME],
        })),
        "GetInterfaceDescription" => match call.parameters.get("interface").and_then(Value::as_str) {
            Some(INTERFACE_NAME) => Reply::of(json!({ "description": INTERFACE })),
            Some("org.varlink.service") => Reply::of(json!({ "description": SERVICE })),
            Some(other) => {
                Reply::error("org.varlink.service.InterfaceNotFound", json!({ "interface": other }))
            }
            None => Reply::bad_parameter("interface"),
        },
        _ => no_method(&call.method),
    })
}

/// Nothing is called like that.
pub(in crate::cli) fn no_method(method: &str) -> Reply {
    match method.rsplit_once('.') {
        Some((interface, _)) if interface != INTERFACE_NAME && interface != "org.varlink.service" => {
            Reply::error("org.varlink.service.InterfaceNotFound", json!({ "interface": interface }))
        }
        _ => Reply::error("org.varlink.service.MethodNotFound", json!({ "method": method })),
    }
}

/// The interface of every service, in our words: names and shapes are the protocol's.
const SERVICE: &str = "# What every service answers.
interface org.varlink.service

method GetInfo() -> (vendor: string, product: string, version: string, url: string, interfaces: []string)
method GetInterfaceDescription(interface: string) -> (description: string)

error InterfaceNotFound (interface: string)
error MethodNotFound (method: string)
error MethodNotImplemented (method: string)
error InvalidParameter (parameter: string)
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn messages_end_with_a_nul_and_come_in_pieces() {
        let mut buffer = message(&Call { method: "a.B".into(), ..Call::default() });
        let half = buffer.split_off(5);
        assert_eq!(next_message(&mut buffer), None);
        buffer.extend(half);
        buffer.extend(b"{}\0rest");
        assert_eq!(call(&next_message(&mut buffer).unwrap()).unwrap().method, "a.B");
        assert_eq!(next_message(&mut buffer).unwrap(), b"{}");
        assert_eq!((next_message(&mut buffer), buffer.as_slice()), (None, &b"rest"[..]));
    }

    #[test]
    fn what_cannot_be_meant_gets_an_error() {
        for bad in [&b""[..], b"{", b"[]", b"{\"method\":1}", b"\xff", b"{\"method\":\"a\",\"more\":\"yes\"}"]
        {
            let error = call(bad).unwrap_err().error.unwrap();
            assert_eq!(error, "org.varlink.service.InvalidParameter");
        }
        let of = |method: &str| service(&Call { method: method.into(), ..Call::default() });
        assert!(of("org.mmpguard.List").is_none());
        assert_eq!(of("org.varlink.service.GetInfo").unwrap().error, None);
        let missing = of("org.varlink.service.Nothing").unwrap().error;
        assert_eq!(missing.as_deref(), Some("org.varlink.service.MethodNotFound"));
        assert_eq!(no_method("x.Y").error.as_deref(), Some("org.varlink.service.InterfaceNotFound"));
        assert_eq!(no_method("y").error.as_deref(), Some("org.varlink.service.MethodNotFound"));
    }

    #[test]
    fn every_method_is_in_the_interface_file() {
        for method in super::super::methods::NAMES {
            assert!(INTERFACE.contains(&format!("method {method}(")), "{method}");
        }
        assert_eq!(INTERFACE.matches("\nmethod ").count(), super::super::methods::NAMES.len());
    }
}
