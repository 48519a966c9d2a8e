//! Sends a request, again after failures that may pass.

use super::{
    CallEvent, CallOptions, ImagesApiError, ImagesResponse, OpenAiImages,
    exchange::{Exchange, Failure, Fetched},
    random::random_hex,
    request::Call,
    retry::{MAX_WAIT, backoff},
};

impl OpenAiImages {
    /// Sends a request until it succeeds or must not be tried again.
    pub(super) fn send(
        &self,
        exchange: &Exchange<'_>,
        mut call: Call<'_>,
        mut response: ImagesResponse,
        options: &mut CallOptions<'_>,
    ) -> Result<ImagesResponse, ImagesApiError> {
        let url = self.base.join(call.endpoint.path());
        let mut body = call.body();
        // The same for every try, so that a server that knows it does the work once.
        let mut idempotency_key = format!("aigc-{}", random_hex());
        let mut failed = 0;
        loop {
            options.report(&CallEvent::Attempt {
                number: response.attempts + 1,
                max: 1 + self.config.max_retries,
            })?;
            response.attempts += 1;
            let attempts = response.attempts;
            let failure = match exchange.post(&url, &body, &idempotency_key) {
                Ok(reply) => {
                    return self
                        .read(exchange, &call, reply, response, options)
                        .map_err(|error| error.with_url(&url).with_attempts(attempts));
                }
                Err(failure) => failure,
            };
            let error = failure.error.with_url(&url).with_attempts(attempts);
            if self.config.drop_unsupported_fields
                && error.code() == Some("unknown_parameter")
                && let Some(param) = error.param()
                && call.options.unset(param)
            {
                response.leave_out(param, "the server does not know it");
                body = call.body();
                idempotency_key = format!("aigc-{}", random_hex());
                continue;
            }
            failed += 1;
            self.before_retry(exchange, failed, error, failure.is_temporary, options)?;
        }
    }

    /// Waits before the next try, or gives up with the error of the last one.
    fn before_retry(
        &self,
        exchange: &Exchange<'_>,
        failed: u32,
        error: ImagesApiError,
        is_temporary: bool,
        options: &mut CallOptions<'_>,
    ) -> Result<(), ImagesApiError> {
        let wait = error.retry_after().unwrap_or_else(|| backoff(failed));
        if !is_temporary
            || failed > self.config.max_retries
            || wait > MAX_WAIT
            || wait >= exchange.time_left()
        {
            return Err(error);
        }
        options.report(&CallEvent::Retry {
            error: &error,
            wait,
        })?;
        exchange.wait(wait)
    }

    /// Fetches a picture, again after failures that may pass.
    pub(super) fn fetch(
        &self,
        exchange: &Exchange<'_>,
        from: &str,
        url: &str,
    ) -> Result<Fetched, ImagesApiError> {
        let mut failed = 0;
        loop {
            let Failure {
                error,
                is_temporary,
            } = match exchange.fetch(from, url) {
                Ok(fetched) => return Ok(fetched),
                Err(failure) => failure,
            };
            failed += 1;
            let quiet = &mut CallOptions::default();
            self.before_retry(exchange, failed, error, is_temporary, quiet)?;
        }
    }
}
