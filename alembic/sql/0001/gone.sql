-- Returns, for each address, up to which id messages to it may have left the log, all published at `gone_at` or before.
-- Nothing if there is no log.
-- What has left a slot is known for hashes of addresses, see note_gone(): an address may share that of another one. A
-- topic that is kept for longer lost nothing else than what was gone when that began, and what kept slots have lost.
CREATE FUNCTION {schema}.gone(addresses text[]) RETURNS TABLE (address text, gone_until bigint, gone_at timestamptz)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    log record;
    ids bigint[];
BEGIN
    SELECT s.gone_until, s.gone_at, s.kept_gone_until, s.kept_gone_at, s.began_at, s.lost_at INTO log FROM {schema}.log_state AS s;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT m.channel::bigint[] INTO ids FROM {schema}.message AS m
    WHERE m.address = 'gone:' AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1;
    RETURN QUERY
        SELECT wanted.address, least(log.gone_until, slots.gone_until, kept.gone_until),
               least(CASE WHEN slots.gone_until > log.began_at THEN log.gone_at ELSE log.lost_at END, kept.gone_at)
        FROM unnest(addresses) AS wanted (address)
        CROSS JOIN LATERAL (
            SELECT coalesce(ids[1 + (hashtextextended(wanted.address, 0) & 16383)], log.gone_until) AS gone_until
        ) AS slots
        CROSS JOIN LATERAL (
            SELECT min(greatest(k.gone_until, log.kept_gone_until)) AS gone_until, min(greatest(k.gone_at, log.kept_gone_at)) AS gone_at
            FROM {schema}.kept_topic AS k
            WHERE wanted.address = k.address OR k.is_pattern AND starts_with(wanted.address, k.address)
        ) AS kept;
END
$$
