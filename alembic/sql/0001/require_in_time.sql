-- Refuses a call that comes late, in seconds since 1970: its caller has given it up, and made it again in another one.
-- Within that time the log still shows whether the other one was committed.
CREATE FUNCTION {schema}.require_in_time(valid_until double precision) RETURNS void
LANGUAGE plpgsql AS $$
BEGIN
    IF extract(epoch FROM clock_timestamp()) > valid_until THEN
        RAISE query_canceled USING MESSAGE = 'the call took too long to reach pgchannels, or a clock was changed';
    END IF;
END
$$
