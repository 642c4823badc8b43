-- Makes the triggers that publish the changes of a table's rows, see publish_row_change(); `without` are columns to leave
-- out. Replaces triggers of the same name. If the topic names no column, TRUNCATE is published, too.
-- For the owner of the table; who writes to it must be allowed to publish.
CREATE OR REPLACE FUNCTION {schema}.publish_row_changes(
    published regclass, topic text, without text[] DEFAULT '{}', prefix text DEFAULT 'asgi',
    name text DEFAULT 'pgchannels_row_changes'
) RETURNS void
LANGUAGE plpgsql
SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    left_out text[] := ARRAY(SELECT unnest(without));
    named text[] := ARRAY(SELECT match[1] FROM regexp_matches(topic, '{([^{}]*)}', 'g') AS match);
    unknown text := (
        SELECT string_agg(quote_ident(wanted), ', ') FROM unnest(named || left_out) AS wanted
        WHERE NOT EXISTS (
            SELECT FROM pg_attribute AS a WHERE a.attrelid = published AND a.attname = wanted AND a.attnum > 0 AND NOT a.attisdropped
        )
    );
    arguments text;
BEGIN
    IF published IS NULL OR topic IS NULL OR without IS NULL OR array_position(left_out, NULL) IS NOT NULL OR name IS NULL THEN
        RAISE null_value_not_allowed USING
            MESSAGE = 'the table, the topic, the columns and the name cannot be NULL',
            HINT = 'For example SELECT publish_row_changes(''orders'', ''orders.{customer_id}'').';
    END IF;
    IF name = '' THEN
        RAISE invalid_name USING
            MESSAGE = 'the name of the trigger is empty',
            HINT = 'Choose one of at most 53 bytes, or leave it out for ''pgchannels_row_changes''.';
    END IF;
    IF octet_length(name) > 53 THEN
        RAISE name_too_long USING
            MESSAGE = format('the name %I takes %s bytes, 53 are the most', name, octet_length(name)),
            HINT = 'Choose a shorter one: the trigger for TRUNCATE is named so, with ''_truncate'' behind it.';
    END IF;
    IF EXISTS (
        SELECT FROM pg_class AS c
        WHERE c.oid = published AND (c.relkind NOT IN ('r', 'p', 'f') OR c.relnamespace = 'pg_catalog'::regnamespace)
    ) THEN
        RAISE wrong_object_type USING
            MESSAGE = format('%s is no table whose changes can be published', published),
            HINT = 'Name a table of your own; for a view, those that it shows.';
    END IF;
    IF EXISTS (SELECT FROM pg_trigger AS t WHERE t.tgrelid = published AND t.tgname = name::name AND t.tgparentid <> 0) THEN
        RAISE wrong_object_type USING
            MESSAGE = format('the changes of %s are published already: it is a partition', published),
            HINT = 'Name the partitioned table.';
    END IF;
    IF EXISTS (
        SELECT FROM pg_class AS c, pg_class AS ours
        WHERE c.oid = published AND ours.oid = '{schema}.outbox'::regclass AND c.relnamespace = ours.relnamespace
    ) THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('%s belongs to pgchannels: its changes cannot be published', published),
            HINT = 'Name a table of your own.';
    END IF;
    IF unknown IS NOT NULL THEN
        RAISE undefined_column USING
            MESSAGE = format('%s has no column %s', published, unknown),
            HINT = format('Its columns are: %s.', (
                SELECT string_agg(quote_ident(a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute AS a
                WHERE a.attrelid = published AND a.attnum > 0 AND NOT a.attisdropped
            ));
    END IF;
    IF EXISTS (SELECT FROM pg_attribute AS a WHERE a.attrelid = published AND a.attname = ANY (named) AND a.attgenerated = 'v') THEN
        RAISE invalid_parameter_value USING
            MESSAGE = format('the topic %s names a virtual generated column, which PostgreSQL does not compute for triggers', topic),
            HINT = 'Make the column STORED, or name another one.';
    END IF;
    PERFORM {schema}.topic_address(regexp_replace(topic, '{[^{}]*}', '0', 'g'), prefix);
    SELECT string_agg(quote_literal(argument), ', ' ORDER BY n) INTO arguments
    FROM unnest(topic || ARRAY(SELECT 'without=' || wanted FROM unnest(left_out) AS wanted) || ('prefix=' || prefix))
        WITH ORDINALITY AS given (argument, n);
    EXECUTE format(
        'CREATE OR REPLACE TRIGGER %I AFTER INSERT OR UPDATE OR DELETE ON %s FOR EACH ROW EXECUTE FUNCTION {schema}.publish_row_change(%s)',
        name, published, arguments
    );
    IF named = '{}' THEN
        EXECUTE format(
            'CREATE OR REPLACE TRIGGER %I AFTER TRUNCATE ON %s FOR EACH STATEMENT EXECUTE FUNCTION {schema}.publish_row_change(%s)',
            name || '_truncate', published, arguments
        );
    ELSE
        EXECUTE format('DROP TRIGGER IF EXISTS %I ON %s', name || '_truncate', published);
    END IF;
END
$$
