-- Makes an empty slot logged or unlogged, as was chosen; returns false if it is already. It locks out everybody else, but
-- not for long: there is nothing to copy.
-- With the whole row as its identity, a logged table can be flushed even if a publication is FOR ALL TABLES.
CREATE FUNCTION {schema}.turn_slot(slot smallint) RETURNS boolean
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    is_durable constant boolean := EXISTS (SELECT FROM {schema}.durability WHERE chosen = 'durable');
BEGIN
    IF {schema}.is_logged(slot) = is_durable THEN
        RETURN false;
    END IF;
    EXECUTE format('ALTER TABLE {schema}.message_%s SET %s', slot, CASE WHEN is_durable THEN 'LOGGED' ELSE 'UNLOGGED' END);
    EXECUTE format('ALTER TABLE {schema}.message_%s REPLICA IDENTITY %s', slot, CASE WHEN is_durable THEN 'FULL' ELSE 'DEFAULT' END);
    RETURN true;
END
$$
