-- Makes a slot, unless it is there; an empty one becomes logged or unlogged, as was chosen.
CREATE OR REPLACE FUNCTION {schema}.make_slot(slot integer) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF to_regclass(format('{schema}.message_%s', slot)) IS NULL THEN
        EXECUTE format(
            'CREATE UNLOGGED TABLE {schema}.message_%s (LIKE {schema}.message INCLUDING ALL) WITH (autovacuum_enabled = off)', slot
        );
        -- Takes a lock that does not conflict with those of readers and writers, or of pg_dump.
        EXECUTE format('ALTER TABLE {schema}.message ATTACH PARTITION {schema}.message_%s FOR VALUES IN (%s)', slot, slot);
    END IF;
    PERFORM {schema}.turn_slot(slot::smallint);
END
$$
