//! The HTTP client of a store, which says of a request that was never sent that it was not.
//!
//! Where a server closes a connection between two requests, hyper gives the second one back as canceled. `object_store` 0.14 takes that for an
//! error it knows nothing about, and does not ask again; told that nothing was sent, it does, with its own patience.

use std::error::Error;

use async_trait::async_trait;
use object_store::ClientOptions;
use object_store::client::{
    HttpClient, HttpConnector, HttpError, HttpErrorKind, HttpRequest, HttpResponse, HttpService, ReqwestConnector,
};

#[derive(Debug, Default)]
pub(super) struct Connector(ReqwestConnector);

impl HttpConnector for Connector {
    fn connect(&self, options: &ClientOptions) -> object_store::Result<HttpClient> {
        self.0.connect(options).map(|client| HttpClient::new(Client(client)))
    }
}

#[derive(Debug)]
struct Client(HttpClient);

#[async_trait]
impl HttpService for Client {
    async fn call(&self, request: HttpRequest) -> Result<HttpResponse, HttpError> {
        self.0
            .execute(request)
            .await
            .map_err(|error| if was_not_sent(&error) { HttpError::new(HttpErrorKind::Request, error) } else { error })
    }
}

fn was_not_sent(error: &HttpError) -> bool {
    let mut cause = error.source();
    while let Some(error) = cause {
        if error.downcast_ref::<hyper::Error>().is_some_and(hyper::Error::is_canceled) {
            return true;
        }
        cause = error.source();
    }
    false
}
