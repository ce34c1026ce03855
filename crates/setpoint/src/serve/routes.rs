//! The endpoints, and the checks that they share.

use std::sync::Arc;

use axum::Router;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, Request, State};
use axum::http::header::CONTENT_TYPE;
use axum::middleware::{self, Next};
use axum::response::{IntoResponse as _, Response};
use axum::routing::{get, post};
use serde_json::{Value, json};

use super::access::is_of_foreign_page;
use super::app::App;
use super::asked::Form;
use super::error::{Answered, ApiError, json_response};
use super::{completion, score};

const HEALTH: &str = "/health";
const METRICS: &str = "/metrics";
const MODELS: &str = "/v1/models";

/// Returns all endpoints.
pub(super) fn router(app: Arc<App>) -> Router {
    Router::new()
        .route(HEALTH, get(health))
        .route(METRICS, get(metrics))
        .route(MODELS, get(models))
        .route("/v1/models/{*name}", get(one_model))
        .route(Form::Chat.endpoint(), post(chat))
        .route(Form::Plain.endpoint(), post(plain))
        .route(score::ENDPOINT, post(scores))
        .fallback(unknown)
        .method_not_allowed_fallback(wrong_method)
        .layer(middleware::from_fn_with_state(app.clone(), guard))
        .with_state(app)
}

/// Asks for the key, and counts the response. The health of the server is no secret.
async fn guard(State(app): State<Arc<App>>, request: Request, next: Next) -> Response {
    let endpoint = endpoint_of(request.uri().path());
    let response = match &app.key {
        Some(key) if endpoint != HEALTH && !key.admits(request.headers()) => ApiError::no_key().into_response(),
        None if is_of_foreign_page(request.headers()) => ApiError::foreign_page().into_response(),
        _ => next.run(request).await,
    };
    app.metrics.count_response(endpoint, response.status().as_u16());
    response
}

/// Returns the endpoint of a path under the name that the figures have for it: there are as many names as endpoints.
fn endpoint_of(path: &str) -> &'static str {
    let all = [HEALTH, METRICS, MODELS, Form::Chat.endpoint(), Form::Plain.endpoint(), score::ENDPOINT];
    match all.into_iter().find(|endpoint| *endpoint == path) {
        Some(endpoint) => endpoint,
        None if path.strip_prefix(MODELS).is_some_and(|rest| rest.starts_with('/')) => MODELS,
        None => "other",
    }
}

async fn health() -> Response {
    json_response(&json!({ "status": "ok" }))
}

async fn metrics(State(app): State<Arc<App>>) -> Response {
    ([(CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], app.metrics.render()).into_response()
}

async fn models(State(app): State<Arc<App>>) -> Response {
    json_response(&json!({ "object": "list", "data": [model(&app)] }))
}

async fn one_model(State(app): State<Arc<App>>, name: Result<Path<String>, PathRejection>) -> Answered<Response> {
    let Path(name) = name.map_err(|_| ApiError::invalid("the model's name in the address is not UTF-8 text"))?;
    // A name that is a path from the root begins with the slash that ends the endpoint's.
    if name == app.name || app.name.strip_prefix('/') == Some(name.as_str()) {
        Ok(json_response(&model(&app)))
    } else {
        Err(ApiError::unknown_model(&name, &app.name))
    }
}

fn model(app: &App) -> Value {
    json!({ "id": app.name, "object": "model", "created": app.created, "owned_by": "setpoint" })
}

async fn chat(State(app): State<Arc<App>>, request: Request) -> Answered<Response> {
    completion::complete(app, Form::Chat, request.into_body()).await
}

async fn plain(State(app): State<Arc<App>>, request: Request) -> Answered<Response> {
    completion::complete(app, Form::Plain, request.into_body()).await
}

async fn scores(State(app): State<Arc<App>>, request: Request) -> Answered<Response> {
    score::score(app, request.into_body()).await
}

async fn unknown(request: Request) -> ApiError {
    let path = super::error::shown(request.uri().path());
    ApiError::unknown_endpoint(format!("there is no endpoint `{path}`; the manual's page SERVING.md lists all"))
}

async fn wrong_method(request: Request) -> ApiError {
    ApiError::wrong_method(request.method().as_str(), request.uri().path())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_figures_have_a_bounded_number_of_names() {
        assert_eq!(endpoint_of("/v1/completions"), "/v1/completions");
        assert_eq!(endpoint_of("/v1/models/runs/dro/model"), "/v1/models");
        for path in ["/", "/v1/modelsx", "/v1/completions/", "/HEALTH", "/v2/anything"] {
            assert_eq!(endpoint_of(path), "other", "{path}");
        }
    }
}
