-- Makes the log keep messages for at least so many seconds, in this term and the next; see rotate().
CREATE FUNCTION {schema}.keep_messages_for(seconds double precision) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted constant interval := make_interval(secs => seconds);  -- not days: some are short
BEGIN
    UPDATE {schema}.log SET retention = greatest(retention, wanted), needed = greatest(needed, wanted)
    WHERE retention < wanted OR needed < wanted;
END
$$
