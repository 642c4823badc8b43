-- Returns an empty slot, logged or unlogged as was chosen; makes a new one if there is none and others cannot take its
-- place. Returns NULL if it is only too early.
CREATE OR REPLACE FUNCTION {schema}.empty_slot(others_are_locked boolean) RETURNS smallint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_durable constant boolean := EXISTS (SELECT FROM {schema}.durability WHERE chosen = 'durable');
    found smallint;
BEGIN
    SELECT min(number) INTO found FROM {schema}.unused_slots() AS number WHERE {schema}.is_logged(number) = is_durable;
    IF found IS NULL AND others_are_locked THEN
        SELECT min(number) INTO found FROM generate_series(0, 31) AS number
        WHERE to_regclass(format('{schema}.message_%s', number)) IS NULL;
        IF found IS NOT NULL THEN
            PERFORM {schema}.make_slot(found);
        END IF;
    END IF;
    RETURN found;
END
$$
