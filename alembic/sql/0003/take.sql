-- Takes up to `most` messages from the front of a queue; nobody else gets them. Also ends the work on those messages, by
-- their numbers and ids, that this node has `done`; `late` says how many of them had been given to others meanwhile.
-- If `most_attempts` is given, what is taken is under work, by the node with this address, until it is done or given
-- back: see give_back(). At the latest, that is after `visible_seconds`, if given.
-- A call that repeats a claim whose outcome is unknown returns the messages of the first call, if there was one. Those on
-- which the work has ended since then have no ids.
-- `lost` messages, the same number on each row, expired before them; if all expired, one row has only that number.
-- If there is nothing to take, a node leaves a token: see wake(). The only row then has the number of the `token`; it is
-- NULL if somebody is sending to the queue: the call should be repeated, and wait for the lock. `known_token` is the
-- last one that the node has left, or 0; a node that polls gives -1 and gets it back, since nobody need wake it.
-- From its first call on, which gives NULL, a node is not notified of every message any more.
-- Claims are rows of the log like messages: nothing is ever deleted, and they leave with the slot that they are in.
CREATE FUNCTION {schema}.take(
    this_claim bigint, valid_until double precision, queue text, most integer,
    node_address text DEFAULT NULL, known_token bigint DEFAULT NULL, waits_for_lock boolean DEFAULT false,
    visible_seconds double precision DEFAULT NULL, most_attempts integer DEFAULT NULL,
    done_numbers bigint[] DEFAULT NULL, done_ids bigint[] DEFAULT NULL
)
RETURNS TABLE (
    id bigint, published_microseconds bigint, address text, channel text, payload bytea, lost bigint,
    number bigint, attempts integer, late integer, token bigint
)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    claims constant text := 'claimed' || substr(queue, 6);
    works constant text := 'working' || substr(queue, 6);
    ended_since bigint[];
    moment timestamptz;
    log record;
    claimed bigint;
    claiming bigint;
    is_repeated boolean;
    holds_queue boolean := waits_for_lock;
    ended integer := 0;
BEGIN
    log := {schema}.lock_addresses(CASE WHEN waits_for_lock THEN ARRAY[queue, claims] ELSE ARRAY[claims] END);
    moment := clock_timestamp();
    IF known_token IS NULL AND node_address IS NOT NULL THEN
        PERFORM {schema}.take_turns(queue, split_part(node_address, ':', 3));
    END IF;
    IF done_numbers IS NOT NULL THEN
        ended := {schema}.end_work(queue, log.slot, done_numbers, done_ids);
    END IF;
    SELECT m.number INTO claiming FROM {schema}.message AS m WHERE m.batch = this_claim;
    is_repeated := FOUND;
    IF is_repeated THEN
        SELECT m.number INTO claimed FROM {schema}.message AS m
        WHERE m.address = claims AND m.number < claiming ORDER BY m.number DESC LIMIT 1;
        ended_since := ARRAY(
            SELECT m.id FROM {schema}.message AS m
            WHERE m.address = 'done' || substr(queue, 6) AND m.number > coalesce(claimed, 0) AND m.number <= claiming
        );
    ELSE
        IF extract(epoch FROM moment) > valid_until THEN
            PERFORM {schema}.refuse_late_call();
        END IF;
        SELECT m.number INTO claimed FROM {schema}.message AS m
        WHERE m.address = claims AND m.number IS NOT NULL ORDER BY m.number DESC LIMIT 1;
        WHILE most > 0 LOOP
            SELECT max(waiting.number) INTO claiming FROM (
                SELECT m.number FROM {schema}.message AS m
                WHERE m.address = queue AND m.number > coalesce(claimed, 0) AND m.expires_at > moment
                ORDER BY m.number LIMIT most
            ) AS waiting;
            IF claiming IS NULL THEN
                SELECT m.number INTO claiming FROM {schema}.message AS m
                WHERE m.address = queue AND m.number > coalesce(claimed, 0) ORDER BY m.number DESC LIMIT 1;
            END IF;
            EXIT WHEN claiming IS NOT NULL OR node_address IS NULL OR known_token = -1 OR holds_queue;
            -- Whoever sends must find the token, or this call must find the message. It does not wait here for a lock
            -- that others take before the one that it has.
            PERFORM FROM {schema}.stripe AS s WHERE s.number = hashtext(queue) & 63 FOR UPDATE SKIP LOCKED;
            EXIT WHEN NOT FOUND;
            holds_queue := true;
        END LOOP;
        IF claiming IS NULL THEN
            IF known_token = -1 THEN
                token := known_token;
            ELSIF most > 0 AND node_address IS NOT NULL AND holds_queue THEN
                token := {schema}.leave_token(queue, log.slot, node_address, known_token);
            END IF;
            IF node_address IS NOT NULL THEN
                RETURN QUERY SELECT NULL::bigint, NULL::bigint, queue, NULL::text, NULL::bytea, 0::bigint,
                                    NULL::bigint, NULL::integer, ended, token;
            END IF;
            RETURN;
        END IF;
        INSERT INTO {schema}.message (slot, id, batch, address, number, payload, published_at, expires_at)
        VALUES (log.slot, 0, this_claim, claims, claiming, '', moment, moment);
        IF most_attempts IS NOT NULL THEN
            INSERT INTO {schema}.message (slot, id, address, channel, number, attempts, payload, published_at, expires_at)
            SELECT log.slot, m.id, works, node_address, m.number, most_attempts, '', moment,
                   CASE WHEN visible_seconds IS NULL THEN 'infinity' ELSE moment + make_interval(secs => visible_seconds) END
            FROM {schema}.message AS m
            WHERE m.address = queue AND m.number > coalesce(claimed, 0) AND m.number <= claiming AND m.expires_at > moment
            ORDER BY m.number;
        END IF;
    END IF;

    IF claimed IS NULL THEN
        SELECT min(m.number) - 1 INTO claimed FROM {schema}.message AS m WHERE m.address = queue AND m.number <= claiming;
    END IF;
    RETURN QUERY
        SELECT CASE WHEN m.id = ANY (ended_since) THEN NULL ELSE m.id END,
               (extract(epoch FROM least(greatest(m.published_at, 'epoch'), '9999-12-31')) * 1000000)::bigint,
               m.address, m.channel, m.payload,
               claiming - claimed - count(*) OVER (), m.number, m.attempts, ended, coalesce(known_token, 0)
        FROM {schema}.message AS m
        WHERE m.address = queue AND m.number > claimed AND m.number <= claiming AND (
            m.expires_at > moment OR is_repeated AND most_attempts IS NOT NULL AND EXISTS (
                SELECT FROM {schema}.message AS w WHERE w.address = works AND w.number = m.number AND w.id = m.id
            )
        )
        ORDER BY m.number;
    IF NOT FOUND THEN
        RETURN QUERY SELECT NULL::bigint, NULL::bigint, queue, NULL::text, NULL::bytea, claiming - claimed,
                            NULL::bigint, NULL::integer, ended, coalesce(known_token, 0);
    END IF;
END
$$
