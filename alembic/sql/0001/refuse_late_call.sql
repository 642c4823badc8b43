-- Refuses a call that arrives too late: its caller has given it up, and repeated it in another call.
-- Until that time, the log shows whether the other call was committed.
CREATE FUNCTION {schema}.refuse_late_call() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RAISE query_canceled USING MESSAGE = 'the call took too long to reach pgchannels, or a clock was changed';
END
$$
