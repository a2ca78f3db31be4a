//! The page that shows the OpenAPI document: made whole here, so that a browser fetches nothing from elsewhere.

use std::fmt::Write as _;

use serde_json::Value;
use utoipa::openapi::OpenApi;

use crate::observe::home::{PAGE_CSP, PAGE_STYLE, escape};

/// `Content-Security-Policy` of the page: its own style alone.
pub(super) const CSP: &str = PAGE_CSP;

/// The page of a document.
pub(super) fn of(document: &OpenApi) -> String {
    let document = serde_json::to_value(document).unwrap_or_default();
    let title = text(&document["info"]["title"]);
    let mut page = format!(
        "<!doctype html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\">\n\
         <title>{title}</title>\n<style>{PAGE_STYLE}</style>\n</head>\n<body>\n\
         <main class=\"text\">\n<h1>{title}</h1>\n<p>{}</p>\n\
         <p>For programs: <a href=\"openapi.json\">openapi.json</a></p>\n",
        text(&document["info"]["description"])
    );
    let prefix = text(&document["servers"][0]["url"]);
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let heading = format!("{} {prefix}{}", method.to_uppercase(), escape(path));
            let _ = write!(page, "<h2><code>{heading}</code></h2>\n<p>{}", text(&operation["summary"]));
            let _ = writeln!(page, " {}</p>", text(&operation["description"]));
            operation_parts(&mut page, operation);
        }
    }
    page.push_str("<h2>Schemas</h2>\n");
    for (name, schema) in document["components"]["schemas"].as_object().into_iter().flatten() {
        let json = serde_json::to_string_pretty(schema).unwrap_or_default();
        let _ = writeln!(page, "<h3 id=\"{0}\">{0}</h3>\n<pre><code>{1}</code></pre>", escape(name), escape(&json));
    }
    page.push_str("</main>\n</body>\n</html>\n");
    page
}

/// Parameters, body and answers of one operation. Writing to a string cannot fail.
fn operation_parts(page: &mut String, operation: &Value) {
    page.push_str("<ul>\n");
    for parameter in operation["parameters"].as_array().into_iter().flatten() {
        let (name, about) = (text(&parameter["name"]), text(&parameter["description"]));
        let _ = writeln!(page, "<li>{} <code>{name}</code>: {about}</li>", text(&parameter["in"]));
    }
    if let Some(body) = operation.get("requestBody") {
        let _ = writeln!(page, "<li>body: {}", text(&body["description"]));
        example(page, &body["content"]);
        page.push_str("</li>\n");
    }
    for (status, answer) in operation["responses"].as_object().into_iter().flatten() {
        let _ = writeln!(page, "<li><code>{}</code> {}", escape(status), text(&answer["description"]));
        example(page, &answer["content"]);
        page.push_str("</li>\n");
    }
    page.push_str("</ul>\n");
}

/// The example of a body, where there is one.
fn example(page: &mut String, content: &Value) {
    let bodies = content.as_object().into_iter().flatten();
    for shown in bodies.filter_map(|(_, body)| body.get("example")) {
        let json = serde_json::to_string_pretty(shown).unwrap_or_default();
        let _ = writeln!(page, "<pre><code>{}</code></pre>", escape(&json));
    }
}

fn text(value: &Value) -> String {
    escape(value.as_str().unwrap_or_default())
}
