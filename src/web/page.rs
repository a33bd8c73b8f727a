//! Templates and the headers of a page.

use crate::api::problem::{Body, Problem};
use axum::http::{StatusCode, header};
use axum::response::{Html, IntoResponse, Response};
use minijinja::Environment;
use minijinja::value::Serde;
use serde::Serialize;
use std::sync::LazyLock;

/// Templates end in `.html`, so minijinja escapes everything that goes into them.
static TEMPLATES: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut env = Environment::new();
    for (name, text) in [
        ("base.html", include_str!("assets/base.html")),
        ("fleet.html", include_str!("assets/fleet.html")),
        ("machine.html", include_str!("assets/machine.html")),
        ("problem.html", include_str!("assets/problem.html")),
    ] {
        if let Err(e) = env.add_template(name, text) {
            tracing::error!(template = name, error = %e, "a template of the page is broken");
        }
    }
    env
});

/// Only our own script and style, no frames, no forms: escaping is the first wall, this the
/// second.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; \
     connect-src 'self'; img-src 'self' data:; base-uri 'none'; form-action 'none'; \
     frame-ancestors 'none'";

pub(super) fn render(template: &str, data: impl Serialize) -> Response {
    respond(StatusCode::OK, template, data)
}

fn respond(status: StatusCode, template: &str, data: impl Serialize) -> Response {
    let text = TEMPLATES
        .get_template(template)
        .and_then(|t| t.render(minijinja::Value::from(Serde(data))));
    match text {
        Ok(text) => {
            (status, [(header::CONTENT_SECURITY_POLICY, POLICY)], Html(text)).into_response()
        }
        Err(e) => {
            tracing::error!(template, error = %e, "the page could not be rendered");
            (StatusCode::INTERNAL_SERVER_ERROR, "the page could not be rendered\n").into_response()
        }
    }
}

/// A problem as a page.
#[derive(Debug)]
pub(super) struct Trouble(Problem);

impl From<Problem> for Trouble {
    fn from(problem: Problem) -> Self {
        Trouble(problem)
    }
}

#[derive(Serialize)]
struct TroublePage<'a> {
    site: &'static str,
    problem: &'a Body,
}

impl IntoResponse for Trouble {
    fn into_response(self) -> Response {
        let body = self.0.body();
        let status = StatusCode::from_u16(body.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let page = TroublePage { site: "Farrier", problem: body };
        respond(status, "problem.html", page)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_parses() {
        for name in ["base.html", "fleet.html", "machine.html", "problem.html"] {
            assert!(TEMPLATES.get_template(name).is_ok(), "{name}");
        }
    }
}
