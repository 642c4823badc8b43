-- Returns an empty slot, logged or unlogged as was chosen; makes a new one if there is none and others cannot take its
-- place. Returns NULL if it is only too early.
CREATE OR REPLACE FUNCTION {schema}.empty_slot(others_are_locked boolean) RETURNS smallint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    slots integer := (SELECT count(*) FROM pg_inherits WHERE inhparent = '{schema}.message'::regclass);
    is_durable constant boolean := EXISTS (SELECT FROM {schema}.durability WHERE chosen = 'durable');
    found smallint;
BEGIN
    SELECT min(number) INTO found FROM {schema}.unused_slots() AS number WHERE {schema}.is_logged(number) = is_durable;
    IF found IS NULL AND others_are_locked AND slots < 32 THEN
        found := slots;
        EXECUTE format(
            'CREATE UNLOGGED TABLE {schema}.message_%s (LIKE {schema}.message INCLUDING ALL) WITH (autovacuum_enabled = off)', found
        );
        PERFORM {schema}.turn_slot(found);
        -- Takes a lock that does not conflict with those of readers and writers, or of pg_dump.
        EXECUTE format('ALTER TABLE {schema}.message ATTACH PARTITION {schema}.message_%s FOR VALUES IN (%s)', found, found);
    END IF;
    RETURN found;
END
$$
