-- Makes the outbox logged or unlogged, as was chosen, with all that waits in it.
-- Raises lock_not_available while a transaction is open that has published: retry. Those that begin to publish meanwhile
-- wait no longer than this does.
CREATE FUNCTION {schema}.turn_outbox() RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
SET lock_timeout = '50ms'
AS $$
DECLARE
    is_durable constant boolean := EXISTS (SELECT FROM {schema}.durability WHERE chosen = 'durable');
    changed text;
BEGIN
    IF (SELECT relpersistence = 'p' FROM pg_class WHERE oid = '{schema}.outbox'::regclass) = is_durable THEN
        RETURN;
    END IF;
    LOCK TABLE {schema}.undelivered, {schema}.outbox IN ACCESS EXCLUSIVE MODE;
    FOREACH changed IN ARRAY ARRAY['undelivered', 'outbox'] LOOP
        EXECUTE format('ALTER TABLE {schema}.%I SET %s', changed, CASE WHEN is_durable THEN 'LOGGED' ELSE 'UNLOGGED' END);
    END LOOP;
    -- It has no key, and a publication FOR ALL TABLES refuses to delete from a logged table without one.
    EXECUTE format('ALTER TABLE {schema}.outbox REPLICA IDENTITY %s', CASE WHEN is_durable THEN 'FULL' ELSE 'DEFAULT' END);
END
$$
