-- Returns for how many seconds a message can be received: by default for as long as the log keeps it for sure, as a
-- negative number, since that is no expiry of its own.
CREATE OR REPLACE FUNCTION {schema}.expiry_of_message(expiry interval) RETURNS double precision
LANGUAGE plpgsql STABLE
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    kept constant interval := (SELECT greatest(retention, '60 s') FROM {schema}.log);
BEGIN
    IF expiry < '1 ms' OR expiry > kept THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('the expiry of %s is impossible', expiry),
            HINT = format('It is at least one millisecond and at most %s, for which the log keeps messages.', kept);
    END IF;
    RETURN coalesce(extract(epoch FROM expiry), -extract(epoch FROM kept));
END
$$
