-- Returns an empty slot; makes a new one if there is none and others are locked. Returns NULL if it is only too early.
CREATE FUNCTION {schema}.empty_slot(others_are_locked boolean) RETURNS smallint
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    slots integer := (SELECT count(*) FROM pg_inherits WHERE inhparent = '{schema}.message'::regclass);
    found smallint;
BEGIN
    SELECT min(number) INTO found FROM generate_series(0, slots - 1) AS number
    WHERE number NOT IN (SELECT slot FROM {schema}.filled_slot) AND number NOT IN (SELECT slot FROM {schema}.log_state);
    IF found IS NULL AND others_are_locked AND slots < 32 THEN
        found := slots;
        EXECUTE format(
            'CREATE UNLOGGED TABLE {schema}.message_%s (LIKE {schema}.message INCLUDING ALL) WITH (autovacuum_enabled = off)', found
        );
        -- Takes a lock that does not conflict with those of readers and writers, or of pg_dump.
        EXECUTE format('ALTER TABLE {schema}.message ATTACH PARTITION {schema}.message_%s FOR VALUES IN (%s)', found, found);
    END IF;
    RETURN found;
END
$$
