-- Finds a time in a topic. Returns the id of the last message before the first one that was published at that time or
-- later, 0 if there is none; and the id after which to read everything published since. The latter is less than
-- the topic's `gone_until`, see gone(), if and only if such messages may have left the log.
-- Both are NULL if there is no log.
-- Published times grow with the ids of a topic, so halving finds the place, unless the clock was set back: then a time
-- has two places, and the first is right. It is found if a step of the search, or one of the thousand messages before
-- the second, lies behind it.
-- There are several statements on purpose: the first locks all slots, so none is emptied after the second has read what
-- has left the log.
CREATE FUNCTION {schema}.find_time(topic_address text, moment timestamptz, OUT last_before bigint, OUT begin_after bigint)
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    began bigint;
    gone record;
    probed record;
    low bigint;  -- up to here, all were published before
    high bigint;  -- from here to `first_since`, there is none
    middle bigint;
    first_since bigint := 9223372036854775807;
    earlier bigint;
BEGIN
    SELECT m.id - 1 INTO low FROM {schema}.message AS m WHERE m.address = topic_address ORDER BY m.id LIMIT 1;
    SELECT s.began_at INTO began FROM {schema}.log_state AS s;
    IF NOT FOUND THEN
        RETURN;
    END IF;
    SELECT g.gone_until, g.gone_at INTO STRICT gone FROM {schema}.gone(ARRAY[topic_address]) AS g;
    SELECT m.id + 1 INTO high FROM {schema}.message AS m WHERE m.address = topic_address ORDER BY m.id DESC LIMIT 1;

    WHILE high - low > 1 LOOP
        middle := low + (high - low) / 2;
        SELECT m.id, m.published_at INTO probed FROM {schema}.message AS m
        WHERE m.address = topic_address AND m.id >= middle AND m.id < high ORDER BY m.id LIMIT 1;
        IF probed.published_at < moment THEN
            low := probed.id;
        ELSE
            first_since := coalesce(probed.id, first_since);
            high := middle;
        END IF;
    END LOOP;
    LOOP
        SELECT min(latest.id) INTO earlier
        FROM (
            SELECT m.id, m.published_at FROM {schema}.message AS m
            WHERE m.address = topic_address AND m.id < first_since ORDER BY m.id DESC LIMIT 1000
        ) AS latest
        WHERE latest.published_at >= moment;
        EXIT WHEN earlier IS NULL;
        first_since := earlier;
    END LOOP;

    SELECT m.id INTO last_before FROM {schema}.message AS m
    WHERE m.address = topic_address AND m.id < first_since ORDER BY m.id DESC LIMIT 1;
    IF last_before >= gone.gone_until THEN
        begin_after := last_before;
    ELSIF moment > gone.gone_at AND first_since > gone.gone_until THEN
        begin_after := gone.gone_until;  -- what has left the log was published before
    ELSE
        begin_after := coalesce(last_before, CASE WHEN gone.gone_until > began THEN began ELSE 0 END);
    END IF;
    last_before := coalesce(last_before, 0);
END
$$
