-- Takes up to `most` messages from the front of a queue; nobody else gets them.
-- A call that repeats a claim whose outcome is unknown returns the messages of the first call, if there was one.
-- `lost` messages, the same number on each row, expired before them; if all expired, one row has only that number.
-- Claims are rows of the log like messages: nothing is ever deleted, and they leave with the slot that they are in.
CREATE FUNCTION {schema}.claim(this_claim bigint, valid_until double precision, queue text, most integer)
RETURNS TABLE (id bigint, published_microseconds bigint, address text, channel text, payload bytea, lost bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    claims text := 'claimed' || substr(queue, 6);
    log record;
    claimed bigint;
    claiming bigint;
BEGIN
    log := {schema}.lock_addresses(ARRAY[claims]);
    SELECT m.number INTO claiming FROM {schema}.message AS m WHERE m.batch = this_claim;
    IF FOUND THEN
        SELECT m.number INTO claimed FROM {schema}.message AS m
        WHERE m.address = claims AND m.number < claiming ORDER BY m.number DESC LIMIT 1;
    ELSE
        IF extract(epoch FROM clock_timestamp()) > valid_until THEN
            PERFORM {schema}.refuse_late_call();
        END IF;
        SELECT m.number INTO claimed FROM {schema}.message AS m
        WHERE m.address = claims AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1;
        SELECT max(waiting.number) INTO claiming FROM (
            SELECT m.number FROM {schema}.message AS m
            WHERE m.address = queue AND m.number > coalesce(claimed, 0) AND m.expires_at > clock_timestamp()
            ORDER BY m.number LIMIT most
        ) AS waiting;
        IF claiming IS NULL THEN
            SELECT m.number INTO claiming FROM {schema}.message AS m
            WHERE m.address = queue AND m.number > coalesce(claimed, 0) ORDER BY m.number DESC LIMIT 1;
        END IF;
        IF claiming IS NULL THEN
            RETURN;
        END IF;
        INSERT INTO {schema}.message (slot, id, batch, address, number, payload, published_at, expires_at)
        VALUES (log.slot, 0, this_claim, claims, claiming, '', clock_timestamp(), clock_timestamp());
    END IF;

    IF claimed IS NULL THEN
        SELECT min(m.number) - 1 INTO claimed FROM {schema}.message AS m WHERE m.address = queue AND m.number <= claiming;
    END IF;
    RETURN QUERY
        SELECT m.id, (extract(epoch FROM least(greatest(m.published_at, 'epoch'), '9999-12-31')) * 1000000)::bigint, m.address, m.channel, m.payload,
               claiming - claimed - count(*) OVER ()
        FROM {schema}.message AS m
        WHERE m.address = queue AND m.number > claimed AND m.number <= claiming AND m.expires_at > clock_timestamp()
        ORDER BY m.number;
    IF NOT FOUND THEN
        RETURN QUERY SELECT NULL::bigint, NULL::bigint, queue, NULL::text, NULL::bytea, claiming - claimed;
    END IF;
END
$$
