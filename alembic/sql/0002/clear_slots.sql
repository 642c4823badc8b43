-- Empties the slots that outlived a crash in which the log was lost; returns a slot for new messages. A slot that somebody
-- reads, as pg_dump does, is truncated later.
CREATE FUNCTION {schema}.clear_slots() RETURNS smallint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms'
AS $$
DECLARE
    is_durable constant boolean := EXISTS (SELECT FROM {schema}.durability WHERE chosen = 'durable');
    slots constant integer := (SELECT count(*) FROM pg_inherits WHERE inhparent = '{schema}.message'::regclass);
    cleared smallint;
    next_slot smallint;
BEGIN
    FOR cleared IN SELECT number FROM generate_series(0, slots - 1) AS number WHERE {schema}.is_logged(number::smallint) LOOP
        BEGIN
            EXECUTE format('TRUNCATE {schema}.message_%s', cleared);
        EXCEPTION WHEN lock_not_available THEN
            EXECUTE format('DELETE FROM {schema}.message_%s', cleared);
            INSERT INTO {schema}.filled_slot (slot, filled_at, last_id) VALUES (cleared, '-infinity', 0);
        END;
    END LOOP;
    SELECT number INTO next_slot FROM generate_series(0, slots - 1) AS number
    ORDER BY number IN (SELECT slot FROM {schema}.filled_slot), {schema}.is_logged(number::smallint) <> is_durable, number LIMIT 1;
    DELETE FROM {schema}.filled_slot WHERE slot = next_slot;
    RETURN next_slot;
END
$$
