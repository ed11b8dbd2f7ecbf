//! Secrets, read so that nothing of them is shown: an answer that can't be read is in no error and no log line.

use std::collections::BTreeMap;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use k8s_openapi::api::core::v1::Secret;
use kube::{
    Api,
    core::{Request, params::GetParams},
};
use serde::Deserialize;
use wasmbed_control::{Hidden, ObjectKey};

use crate::{CallError, Caller};

/// The data of a Secret: key and value.
pub type SecretData = Vec<(String, Hidden<Vec<u8>>)>;

#[derive(Deserialize)]
struct Text {
    #[serde(default)]
    data: Option<BTreeMap<String, Hidden<String>>>,
}

impl Caller {
    /// Reads the data of a Secret; `None` if there is none. The client's own way would log an answer that is not a Secret.
    ///
    /// # Errors
    /// The API did not answer with a Secret or with 404.
    pub async fn secret(&self, key: &ObjectKey) -> Result<Option<SecretData>, CallError> {
        let secrets: Api<Secret> = self.api(&key.namespace);
        let unusable = || CallError::Unusable("a request or answer about a Secret can't be used");
        let request = Request::new(secrets.resource_url());
        let request = request.get(&key.name, &GetParams::default()).map_err(|_| unusable())?;
        let answer = match self.within(&key.name, self.client().request_text(request)).await {
            Ok(text) => Hidden::new(text),
            Err(error) if error.status() == Some(404) => return Ok(None),
            Err(error) => return Err(error),
        };
        let text: Text = serde_json::from_str(&answer).map_err(|_| unusable())?;
        let values = text.data.unwrap_or_default().into_iter();
        let decode = |(key, value): (String, Hidden<String>)| {
            STANDARD.decode(&*value).map(|value| (key, Hidden::new(value))).map_err(|_| unusable())
        };
        values.map(decode).collect::<Result<_, _>>().map(Some)
    }
}

#[cfg(test)]
mod tests {
    use axum::{Router, http::StatusCode, response::IntoResponse as _};
    use kube::Client;
    use wasmbed_api::CONTROLLER_COMPONENT;

    use super::*;

    /// Secrets by name, one of them none at all.
    async fn api(uri: axum::http::Uri) -> axum::response::Response {
        let name = uri.path().rsplit('/').next().unwrap_or_default();
        match name {
            "whole" => r#"{"kind":"Secret","data":{"a":"czNjcmV0","b":""}}"#.into_response(),
            "empty" => r#"{"kind":"Secret"}"#.into_response(),
            "broken" => r#"{"data":{"a":["s3cret"]}}"#.into_response(),
            "text" => r#"{"data":{"a":"s3cret!"}}"#.into_response(),
            "refused" => {
                let status =
                    r#"{"kind":"Status","code":403,"reason":"Forbidden","message":"no","status":"Failure"}"#;
                (StatusCode::FORBIDDEN, status).into_response()
            }
            _ => {
                let status =
                    r#"{"kind":"Status","code":404,"reason":"NotFound","message":"no","status":"Failure"}"#;
                (StatusCode::NOT_FOUND, status).into_response()
            }
        }
    }

    #[tokio::test]
    async fn a_secret_is_read_and_an_answer_that_is_none_is_not_shown() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = tokio::spawn(async move { axum::serve(listener, Router::new().fallback(api)).await });
        let client =
            Client::try_from(kube::Config::new(format!("http://{address}").parse().unwrap())).unwrap();
        let caller = Caller::new(client, CONTROLLER_COMPONENT, "c");
        let read = async |name: &str| caller.secret(&ObjectKey::new("default", name)).await;
        let whole = read("whole").await.unwrap().unwrap();
        let plain: Vec<(&str, &[u8])> =
            whole.iter().map(|(key, value)| (key.as_str(), value.as_slice())).collect();
        assert_eq!(plain, [("a", &b"s3cret"[..]), ("b", b"")]);
        assert!(!format!("{whole:?}").contains("115"), "bytes are not shown either");
        assert_eq!(read("empty").await.unwrap(), Some(Vec::new()));
        assert_eq!(read("none").await.unwrap(), None);
        assert_eq!(read("refused").await.unwrap_err().status(), Some(403));
        for name in ["broken", "text"] {
            let error = read(name).await.unwrap_err();
            assert!(!format!("{error} {error:?}").contains("s3cret"), "{error:?}");
        }
        server.abort();
    }
}
