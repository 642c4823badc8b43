-- Removes what publish_row_changes() has made; an error if there is nothing of that name.
CREATE OR REPLACE FUNCTION {schema}.stop_row_changes(published regclass, name text DEFAULT 'pgchannels_row_changes') RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF published IS NULL OR name IS NULL THEN
        RAISE null_value_not_allowed USING
            MESSAGE = 'the table and the name cannot be NULL',
            HINT = 'For example SELECT stop_row_changes(''orders'').';
    END IF;
    IF NOT EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = published AND t.tgname = stop_row_changes.name::name) THEN
        RAISE undefined_object USING
            MESSAGE = format('%s has no trigger %I', published, name),
            HINT = coalesce((
                SELECT format('Its changes are published by the trigger %s.', string_agg(quote_ident(t.tgname), ', ' ORDER BY t.tgname))
                FROM pg_trigger AS t WHERE t.tgrelid = published AND t.tgfoid = '{schema}.publish_row_change()'::regprocedure
                HAVING count(*) > 0
            ), 'No trigger publishes its changes.');
    END IF;
    IF EXISTS (
        SELECT FROM pg_trigger AS t
        WHERE t.tgrelid = published AND t.tgname = stop_row_changes.name::name AND t.tgparentid <> 0
    ) THEN
        RAISE wrong_object_type USING
            MESSAGE = format('%s is a partition, and has the trigger %I of its table', published, name),
            HINT = 'Name the partitioned table.';
    END IF;
    EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', name || '_truncate', published);
    EXECUTE format('DROP TRIGGER %I ON %s', name, published);
END
$$
