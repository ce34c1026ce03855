//! Refusals and failures: OpenAI's error object and its status.

use axum::http::header::{CONTENT_TYPE, RETRY_AFTER};
use axum::http::{HeaderValue, StatusCode};
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};

/// A refusal or a failure.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct ApiError {
    /// The status of the response.
    pub(super) status: StatusCode,
    /// OpenAI's type of the error.
    kind: &'static str,
    /// A word for programs.
    code: Option<&'static str>,
    /// The field of the request that is wrong.
    param: Option<String>,
    /// One sentence.
    message: String,
}

/// The result of reading or answering a request.
pub(super) type Answered<T> = Result<T, ApiError>;

const INVALID: &str = "invalid_request_error";

impl ApiError {
    fn new(status: StatusCode, kind: &'static str, code: Option<&'static str>, message: impl Into<String>) -> Self {
        Self { status, kind, code, param: None, message: message.into() }
    }

    /// Returns the refusal of a request that is wrong as a whole: 400.
    pub(super) fn invalid(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, INVALID, None, message)
    }

    /// Returns the refusal of a field: 400.
    pub(super) fn field(param: impl Into<String>, message: impl Into<String>) -> Self {
        Self { param: Some(param.into()), ..Self::invalid(message) }
    }

    /// Returns the refusal of a text that leaves no room for an answer: 400.
    pub(super) fn too_long(param: &str, tokens: usize, most: usize) -> Self {
        let message = format!("`{param}` has {tokens} tokens; the model reads at most {most}, the answer included");
        Self { code: Some("context_length_exceeded"), ..Self::field(param, message) }
    }

    /// Returns the refusal of a request without the key: 401.
    pub(super) fn no_key() -> Self {
        let message = "this server asks for its key: send the header `Authorization: Bearer KEY`";
        Self::new(StatusCode::UNAUTHORIZED, INVALID, Some("invalid_api_key"), message)
    }

    /// Returns the refusal of a page in a browser: 403.
    pub(super) fn foreign_page() -> Self {
        let message = "pages of other machines are answered only with a key (SETPOINT_API_KEY)";
        Self::new(StatusCode::FORBIDDEN, INVALID, Some("foreign_origin"), message)
    }

    /// Returns the refusal of a model that is not served: 404.
    pub(super) fn unknown_model(asked: &str, served: &str) -> Self {
        let message = format!("there is no model `{}` here; this server has `{served}`", shown(asked));
        let error = Self::new(StatusCode::NOT_FOUND, INVALID, Some("model_not_found"), message);
        Self { param: Some("model".to_owned()), ..error }
    }

    /// Returns the refusal of an endpoint that does not exist: 404.
    pub(super) fn unknown_endpoint(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, INVALID, Some("unknown_endpoint"), message)
    }

    /// Returns the refusal of a method: 405.
    pub(super) fn wrong_method(method: &str, path: &str) -> Self {
        let message = format!("`{}` does not take {method} requests", shown(path));
        Self::new(StatusCode::METHOD_NOT_ALLOWED, INVALID, Some("method_not_allowed"), message)
    }

    /// Returns the end of a request that took too long: 408.
    pub(super) fn timeout(seconds: f64) -> Self {
        let message = format!("the request was not answered within {seconds} seconds (setting serve.timeout_seconds)");
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", Some("timeout"), message)
    }

    /// Returns the refusal of a body that does not arrive: 408.
    pub(super) fn late_body(seconds: u64) -> Self {
        let message = format!("the body did not arrive within {seconds} seconds");
        Self::new(StatusCode::REQUEST_TIMEOUT, "timeout_error", Some("timeout"), message)
    }

    /// Returns the refusal of a body that is too large: 413.
    pub(super) fn too_large(most: usize) -> Self {
        let message = format!("the body has more than {most} bytes");
        Self::new(StatusCode::PAYLOAD_TOO_LARGE, INVALID, Some("request_too_large"), message)
    }

    /// Returns the refusal of a request for which the queue has no room: 429.
    pub(super) fn queue_full() -> Self {
        let message = "the queue is full (setting serve.queue): ask again later";
        Self::new(StatusCode::TOO_MANY_REQUESTS, "rate_limit_error", Some("queue_full"), message)
    }

    /// Returns a failure that is not the client's fault: 500.
    pub(super) fn failed(message: impl Into<String>) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, "server_error", None, message)
    }

    /// Returns the end of a request because the server ends: 503.
    pub(super) fn ending() -> Self {
        let message = "the server is shutting down";
        Self::new(StatusCode::SERVICE_UNAVAILABLE, "server_error", Some("shutting_down"), message)
    }

    /// Returns OpenAI's error object.
    pub(super) fn body(&self) -> Value {
        let Self { kind, code, param, message, .. } = self;
        json!({ "error": { "message": message, "type": kind, "param": param, "code": code } })
    }
}

impl IntoResponse for ApiError {
    fn into_response(self) -> Response {
        let mut response = json_response(&self.body());
        *response.status_mut() = self.status;
        if self.status == StatusCode::TOO_MANY_REQUESTS {
            response.headers_mut().insert(RETRY_AFTER, HeaderValue::from_static("1"));
        }
        response
    }
}

/// Returns a response with status 200 and a body of JSON.
pub(super) fn json_response(body: &Value) -> Response {
    ([(CONTENT_TYPE, HeaderValue::from_static("application/json"))], body.to_string()).into_response()
}

/// Returns the beginning of what a client sent, for a message.
pub(super) fn shown(text: &str) -> String {
    const LONGEST: usize = 100;
    match text.char_indices().nth(LONGEST) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}
