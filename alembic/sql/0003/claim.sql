-- Takes messages from the front of a queue, as take() does, for nodes of the version before: they learn of every message.
CREATE OR REPLACE FUNCTION {schema}.claim(this_claim bigint, valid_until double precision, queue text, most integer)
RETURNS TABLE (id bigint, published_microseconds bigint, address text, channel text, payload bytea, lost bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    RETURN QUERY SELECT t.id, t.published_microseconds, t.address, t.channel, t.payload, t.lost
    FROM {schema}.take(this_claim, valid_until, queue, most) AS t;
END
$$
