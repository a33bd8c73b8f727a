//! Refusals in the words of the Base registry (DSP8011 Base.1.18.1), each with its id, its arguments
//! and what to do about it.

use super::redfish::document;
use axum::http::StatusCode;
use axum::response::Response;
use serde_json::{Value, json};

/// A request that is turned down: status and `error` body.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    body: Value,
}

impl Refusal {
    pub(super) fn answer(&self) -> Response {
        document(self.status, &self.body)
    }
}

/// Id, text with %1 … for its arguments, severity, resolution.
type Words = (&'static str, &'static str, &'static str, &'static str);

const ARGUMENTS: &str = "Correct the value and resubmit the request.";
const WORDS: [Words; 33] = [
    (
        "AccessDenied",
        "While attempting to establish a connection to %1, the service denied access.",
        "Critical",
        "Check the credentials.",
    ),
    (
        "ActionParameterMissing",
        "The action %1 requires the parameter %2 to be present in the request body.",
        "Critical",
        "Supply the action with the required parameter and resubmit the request.",
    ),
    (
        "ActionParameterNotSupported",
        "The parameter %1 for the action %2 is not supported on the target resource.",
        "Warning",
        "Remove the parameter and resubmit the request.",
    ),
    (
        "ActionParameterValueFormatError",
        "The value %1 for the parameter %2 in the action %3 is of a different format than the parameter can accept.",
        "Warning",
        ARGUMENTS,
    ),
    (
        "ActionParameterValueNotInList",
        "The value %1 for the parameter %2 in the action %3 is not in the list of acceptable values.",
        "Warning",
        ARGUMENTS,
    ),
    (
        "CouldNotEstablishConnection",
        "The service failed to establish a connection with the URI %1.",
        "Critical",
        "Ensure that the URI contains a valid and reachable node name, protocol information and other URI components.",
    ),
    (
        "CreateLimitReachedForResource",
        "The create operation failed because the resource has reached the limit of possible resources.",
        "Critical",
        "Delete resources or decrease the number of resources and resubmit the request.",
    ),
    (
        "EmptyJSON",
        "The request body submitted contained an empty JSON object and the service is unable to process it.",
        "Warning",
        "Add properties in the JSON object and resubmit the request.",
    ),
    ("GeneralError", "A general error has occurred.", "Critical", "See the message."),
    (
        "InsufficientPrivilege",
        "There are insufficient privileges for the account or credentials associated with the current session to perform the requested operation.",
        "Critical",
        "Use an account with more privileges and resubmit the request.",
    ),
    (
        "InternalError",
        "The request failed due to an internal service error.",
        "Critical",
        "Resubmit the request. If the problem persists, consider resetting the service.",
    ),
    (
        "MalformedJSON",
        "The request body submitted was malformed JSON and could not be parsed by the receiving service.",
        "Critical",
        "Ensure that the request body is valid JSON and resubmit the request.",
    ),
    (
        "MissingOrMalformedPart",
        "The multipart request contains malformed parts or is missing required parts.",
        "Critical",
        "Ensure that all parts are there and resubmit the request.",
    ),
    (
        "NoValidSession",
        "There is no valid session established with the implementation.",
        "Critical",
        "Establish a session before attempting any operations.",
    ),
    (
        "OperationNotAllowed",
        "The HTTP method is not allowed on this resource.",
        "Critical",
        "None.",
    ),
    (
        "PasswordChangeRequired",
        "The password provided for this account must be changed before access is granted. PATCH the Password property for this account located at the target URI %1 to complete this process.",
        "Critical",
        "Change the password for this account and resubmit the request.",
    ),
    (
        "PreconditionFailed",
        "The ETag supplied did not match the ETag required to change this resource.",
        "Critical",
        "Get the resource again and resubmit the request with its new ETag.",
    ),
    (
        "PropertyMissing",
        "The property %1 is a required property and must be included in the request.",
        "Warning",
        "Ensure that the property is in the request body and resubmit the request.",
    ),
    (
        "PropertyNotWritable",
        "The property %1 is a read-only property and cannot be assigned a value.",
        "Warning",
        "Remove the property from the request body and resubmit the request.",
    ),
    (
        "PropertyUnknown",
        "The property %1 is not in the list of valid properties for the resource.",
        "Warning",
        "Remove the unknown property from the request body and resubmit the request.",
    ),
    (
        "PropertyValueFormatError",
        "The value %1 for the property %2 is not a format that the property can accept.",
        "Warning",
        ARGUMENTS,
    ),
    (
        "PropertyValueNotInList",
        "The value %1 for the property %2 is not in the list of acceptable values.",
        "Warning",
        ARGUMENTS,
    ),
    (
        "PropertyValueOutOfRange",
        "The value %1 for the property %2 is not in the supported range of acceptable values.",
        "Warning",
        ARGUMENTS,
    ),
    (
        "PropertyValueTypeError",
        "The value %1 for the property %2 is not a type that the property can accept.",
        "Warning",
        ARGUMENTS,
    ),
    (
        "QueryNotSupported",
        "Querying is not supported by the implementation.",
        "Warning",
        "Remove the query parameters and resubmit the request.",
    ),
    (
        "ResourceAlreadyExists",
        "The requested resource of type %1 with the property %2 with the value %3 already exists.",
        "Critical",
        "Do not repeat the create operation as the resource has already been created.",
    ),
    (
        "ResourceCannotBeDeleted",
        "The delete request failed because the resource requested cannot be deleted.",
        "Critical",
        "Do not attempt to delete a non-deletable resource.",
    ),
    (
        "ResourceInUse",
        "The change to the requested resource failed because the resource is in use or in transition.",
        "Warning",
        "Remove the condition and resubmit the request if the operation failed.",
    ),
    (
        "ResourceMissingAtURI",
        "The resource at the URI %1 was not found.",
        "Critical",
        "Place a valid resource at the URI or correct the URI and resubmit the request.",
    ),
    (
        "ServiceTemporarilyUnavailable",
        "The service is temporarily unavailable. Retry in %1 seconds.",
        "Critical",
        "Wait for the indicated retry duration and retry the operation.",
    ),
    (
        "SessionLimitExceeded",
        "The session establishment failed due to the number of simultaneous sessions exceeding the limit of the implementation.",
        "Critical",
        "Reduce the number of other sessions before trying to establish the session.",
    ),
    ("Success", "The request completed successfully.", "OK", "None."),
    (
        "UnrecognizedRequestBody",
        "The service detected a malformed request body that it was unable to interpret.",
        "Warning",
        "Correct the request body and resubmit the request if it failed.",
    ),
];

/// One message of the registry; an id that is none of [`WORDS`] is `GeneralError`.
pub(super) fn message(id: &str, args: &[&str]) -> Value {
    let general = ("GeneralError", "A general error has occurred.", "Critical", "None.");
    let found = WORDS.iter().find(|(name, ..)| *name == id).copied();
    let (id, template, severity, resolution) = found.unwrap_or(general);
    let mut text = template.to_string();
    for (n, arg) in args.iter().enumerate() {
        text = text.replace(&format!("%{}", n + 1), arg);
    }
    json!({
        "@odata.type": "#Message.v1_1_2.Message", "MessageId": format!("Base.1.18.{id}"),
        "Message": text, "MessageArgs": args, "Severity": severity, "MessageSeverity": severity,
        "Resolution": resolution,
    })
}

/// A refusal with one message of the registry.
pub(super) fn refusal(status: StatusCode, id: &str, args: &[&str]) -> Refusal {
    let said = message(id, args);
    let body = json!({"error": {
        "code": said["MessageId"], "message": said["Message"],
        "@Message.ExtendedInfo": [said],
    }});
    Refusal { status, body }
}

/// A refusal in words of our own, where the registry has none that say enough.
pub(super) fn because(status: StatusCode, why: &str) -> Refusal {
    let mut said = message("GeneralError", &[]);
    said["Message"] = why.into();
    let body = json!({"error": {
        "code": said["MessageId"], "message": why, "@Message.ExtendedInfo": [said],
    }});
    Refusal { status, body }
}

/// 404: the router puts the path in.
pub(super) fn missing() -> Refusal {
    because(StatusCode::NOT_FOUND, "there is no such resource")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_has_its_arguments_in_place_and_ids_are_sorted() {
        let m = message("PropertyValueNotInList", &["Sideways", "BootSourceOverrideTarget"]);
        assert_eq!(m["MessageId"], "Base.1.18.PropertyValueNotInList");
        let text = m["Message"].as_str().unwrap_or_default();
        assert!(text.starts_with("The value Sideways for the property BootSource"), "{text}");
        assert!(WORDS.is_sorted_by_key(|w| w.0));
        assert!(WORDS.iter().all(|(_, text, severity, _)| {
            !text.is_empty() && ["OK", "Warning", "Critical"].contains(severity)
        }));
    }
}
