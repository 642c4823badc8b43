-- Empties the slots that outlived a crash in which the log was lost; returns a slot for new messages. A slot that somebody
-- reads, as pg_dump does, is truncated later.
CREATE FUNCTION {schema}.clear_slots() RETURNS smallint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms'
AS $$
DECLARE
    is_durable constant boolean := EXISTS (SELECT FROM {schema}.durability WHERE chosen = 'durable');
    cleared smallint;
    next_slot smallint;
BEGIN
    FOR cleared IN
        SELECT substr(c.relname, 9)::smallint FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
        WHERE i.inhparent = '{schema}.message'::regclass AND c.relpersistence = 'p'
    LOOP
        BEGIN
            EXECUTE format('TRUNCATE {schema}.message_%s', cleared);
        EXCEPTION WHEN lock_not_available THEN
            EXECUTE format('DELETE FROM {schema}.message_%s', cleared);
            IF cleared < 100 THEN
                INSERT INTO {schema}.filled_slot (slot, filled_at, last_id) VALUES (cleared, '-infinity', 0);
            ELSE
                INSERT INTO {schema}.kept_slot (slot, began_at, filled_at) VALUES (cleared, '-infinity', '-infinity');
            END IF;
        END;
    END LOOP;
    SELECT number INTO next_slot FROM generate_series(0, 31) AS number
    WHERE to_regclass(format('{schema}.message_%s', number)) IS NOT NULL
    ORDER BY number IN (SELECT slot FROM {schema}.filled_slot), {schema}.is_logged(number::smallint) <> is_durable, number LIMIT 1;
    DELETE FROM {schema}.filled_slot WHERE slot = next_slot;
    RETURN next_slot;
END
$$
